# Messages of NATS that are events. Part of events.pyx; see the twin `nats_py.py`.

cdef enum:
    DIGITS_MAX = 9          # of a size
    TOKEN_FIELDS = 4        # behind the count of deliveries: two numbers, a time, how many are left

cdef const char* OUR_HEAD = "NATS/1.0\r\nNats-Msg-Id: "


cdef struct Incoming:
    Slice reply
    Slice body
    Py_ssize_t end


cdef Py_ssize_t digits_of(Slice text):
    # A number; -1: it is none.
    cdef Py_ssize_t value = 0, i
    if not 0 < text.size <= DIGITS_MAX:
        return -1
    for i in range(text.size):
        if not 0x30 <= text.data[i] <= 0x39:
            return -1
        value = 10 * value + text.data[i] - 0x30
    return value


cdef bint next_word(Slice* line, Slice* word):
    # The next word of a line, which loses it; words are separated by one space.
    cdef const void* space = memchr(line.data, 0x20, line.size)
    word.data = line.data
    word.size = line.size if space == NULL else <const uint8_t*>space - line.data
    line.data += word.size + (space != NULL)
    line.size -= word.size + (space != NULL)
    return word.size > 0


cdef bint is_first_delivery(Slice reply):
    # $JS.ACK.stream.consumer.1.sequence.number.nanoseconds.pending, or longer in front
    cdef Py_ssize_t i = reply.size
    cdef int fields = 0
    cdef bint digits = False
    while fields < TOKEN_FIELDS:
        i -= 1
        if i < 10:
            return False
        if reply.data[i] == 0x2E:
            if not digits:
                return False
            fields += 1
            digits = False
        elif 0x30 <= reply.data[i] <= 0x39:
            digits = True
        else:
            return False
    return reply.data[i - 1] == 0x31 and reply.data[i - 2] == 0x2E and not memcmp(reply.data, "$JS.ACK.", 8)


cdef bint is_our_head(const uint8_t* head, Py_ssize_t size):
    # Whether headers are an id of the message and nothing else.
    cdef Py_ssize_t begin = strlen(OUR_HEAD), room = size - 4 - strlen(OUR_HEAD)
    if room < 0 or memcmp(head, OUR_HEAD, begin) or memcmp(head + size - 4, "\r\n\r\n", 4):
        return False
    return memchr(head + begin, 0x0D, room) == NULL and memchr(head + begin, 0x0A, room) == NULL


cdef bint next_message(Slice data, int number, Incoming* message):
    # The message that the data begin with; False: it is not one to take.
    cdef const void* found = memchr(data.data, 0x0A, min(data.size, LINE_MAX))
    cdef Slice line, word
    cdef Py_ssize_t head = 0, size, begin, i
    cdef bint headers
    if found == NULL or data.size < 5:
        return False
    begin = <const uint8_t*>found - data.data + 1
    headers = data.data[0] == 0x48      # H
    line.data, line.size = data.data + headers, begin - 2 - headers
    if line.size < 4 or memcmp(line.data, "MSG ", 4) or line.data[line.size] != 0x0D:
        return False
    for i in range(line.size):
        if line.data[i] < 0x20:     # it would separate words, too
            return False
    next_word(&line, &word)
    if not next_word(&line, &word) or not next_word(&line, &word) or digits_of(word) != number:
        return False
    if not next_word(&line, &message.reply) or not is_first_delivery(message.reply):
        return False
    if headers:
        next_word(&line, &word)
        head = digits_of(word)
    size = digits_of(line)
    if not 0 <= head <= size or size + 2 > data.size - begin:
        return False
    if data.data[begin + size] != 0x0D or data.data[begin + size + 1] != 0x0A:
        return False
    if headers and not is_our_head(data.data + begin, head):
        return False
    message.body.data, message.body.size = data.data + begin + head, size - head
    message.end = begin + size + 2
    return message.body.size < 3 or memcmp(message.body.data, "CRF", 3) != 0


def take_messages(bytes data not None, Py_ssize_t at, int number, topic):
    """Take messages that are events; see the twin."""
    cdef Slice rest = slice_of(data)
    cdef Incoming message
    cdef Packer packer = Packer(topic)
    cdef list replies = []
    if not 0 <= at <= rest.size:
        return at, replies, None
    rest.data += at
    rest.size -= at
    while next_message(rest, number, &message):
        try:
            packer.add(&message.body)
        except PayloadError:
            break
        replies.append(bytes_of(message.reply))
        rest.data += message.end
        rest.size -= message.end
        at += message.end
    return at, replies, packer.frame() if replies else None
