# Blocks of memory in a list, header only: what the buffers of the batch and telemetry kernels are made of. Touches no object.

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy


cdef enum:
    SPARES = 4              # blocks kept for reuse


cdef struct Block:
    Block* next
    Py_ssize_t size
    Py_ssize_t capacity
    int64_t count           # of what is in it
    int64_t tag             # its owner's


cdef struct Blocks:
    Block* head             # sealed, in order
    Block* tail
    Block* spare
    int spares
    Py_ssize_t first        # capacity of a new block
    Py_ssize_t limit        # and to what it grows before it only grows as needed


cdef inline uint8_t* body_of(Block* block) noexcept nogil:
    return <uint8_t*>block + sizeof(Block)


cdef inline void free_blocks(Blocks* blocks) noexcept nogil:
    cdef Block* block
    while blocks.head != NULL:
        block = blocks.head
        blocks.head = block.next
        free(block)
    while blocks.spare != NULL:
        block = blocks.spare
        blocks.spare = block.next
        free(block)
    blocks.tail = NULL
    blocks.spares = 0


cdef inline Block* new_block(Blocks* blocks, Py_ssize_t needed) noexcept nogil:
    # An empty one; NULL without memory.
    cdef Block* block = blocks.spare
    cdef Py_ssize_t capacity
    if block != NULL and block.capacity >= needed:
        blocks.spare = block.next
        blocks.spares -= 1
    else:
        capacity = max(needed, min(blocks.limit, blocks.first))
        block = <Block*>malloc(sizeof(Block) + capacity)
        if block == NULL:
            return NULL
        block.capacity = capacity
    block.next = NULL
    block.size = block.count = 0
    return block


cdef inline bint reserve_in(Blocks* blocks, Block** block, Py_ssize_t needed) noexcept nogil:
    # Room for so many bytes; what grows at least doubles, up to `limit`. False without memory.
    cdef Py_ssize_t capacity = block[0].capacity
    cdef Block* grown
    if needed > capacity:
        capacity = max(needed, min(2 * capacity, blocks.limit))
        grown = <Block*>realloc(block[0], sizeof(Block) + capacity)
        if grown == NULL:
            return False
        grown.capacity = capacity
        block[0] = grown
    return True


cdef inline void recycle(Blocks* blocks, Block* block) noexcept nogil:
    if blocks.spares < SPARES and min(blocks.first, blocks.limit) <= block.capacity <= blocks.limit:
        block.next = blocks.spare
        blocks.spare = block
        blocks.spares += 1
    else:
        free(block)


cdef inline void seal(Blocks* blocks, Block* block) noexcept nogil:
    # Appends it to the list. One that waits holds no more than twice what is in it: the buffer's bound is one of memory.
    cdef Block* exact
    if block.size < block.capacity // 2:
        exact = <Block*>malloc(sizeof(Block) + block.size)
        if exact != NULL:
            memcpy(exact, block, sizeof(Block) + block.size)
            exact.capacity = block.size
            recycle(blocks, block)
            block = exact
    block.next = NULL
    if blocks.head == NULL:
        blocks.head = block
    else:
        blocks.tail.next = block
    blocks.tail = block
