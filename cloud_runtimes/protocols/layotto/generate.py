"""Writes `descriptors` from the ``.proto`` files beside it: ``python -m cloud_runtimes.protocols.layotto.generate``, which needs grpcio-tools (extra ``dev``)."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["FILES", "HERE", "generated"]

HERE: Final = Path(__file__).parent
FILES: Final = ("spec/proto/runtime/v1/appcallback.proto", "spec/proto/runtime/v1/runtime.proto")
_WIDTH: Final = 100
_HEAD: Final = '''"""The descriptors of the ``.proto`` files beside this, as protoc writes them. Made by `generate`: change the files, not this."""

from __future__ import annotations

from typing import Final

__all__ = ["DESCRIPTORS"]

DESCRIPTORS: Final = (
'''


def generated() -> str:
    """Return what `descriptors` must hold.

    Raises:
        ImportError: grpcio-tools is not installed.
        ValueError: the compiler refuses the files; it has said why on standard error.
    """
    from google.protobuf import descriptor_pb2
    from grpc_tools import _proto, protoc

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        include = Path(_proto.__path__[0])
        command = ["protoc", f"-I{HERE}", f"-I{include}", f"--descriptor_set_out={made}", *FILES]
        if protoc.main(command) != 0:
            raise ValueError("protoc refuses the files")
        found = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes())
    # the same bytes whatever the compiler's version writes beside names, numbers and types
    for file in found.file:
        file.ClearField("source_code_info")
    text = base64.b64encode(found.SerializeToString(deterministic=True)).decode()
    lines = [text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)]
    return _HEAD + "".join(f'    "{line}"\n' for line in lines) + ")\n"


if __name__ == "__main__":
    (HERE / "descriptors.py").write_text(generated(), encoding="utf-8")
