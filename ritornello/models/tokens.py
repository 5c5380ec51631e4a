"""Text to ids and back."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any, Protocol

from ritornello import _files
from ritornello.errors import CheckpointError, InputError

__all__ = ["ByteTokenizer", "Decoder", "FileTokenizer", "Tokenizer"]


class Decoder(Protocol):
    """Turns ids to text as they come, holding back what is no whole character yet."""

    def add(self, token: int) -> str: ...

    def flush(self) -> str: ...


class Tokenizer(Protocol):
    """What a language model asks of its tokens."""

    vocab_size: int

    def encode(self, text: str | bytes) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...

    def decoder(self) -> Decoder: ...


class ByteTokenizer:
    """The bytes of UTF-8; any bytes at all are a prompt."""

    vocab_size = 256

    def encode(self, text: str | bytes) -> list[int]:
        # surrogateescape: bytes of the command line that are no UTF-8 come back as they were
        return list(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text)

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def decoder(self) -> Decoder:
        return _ByteDecoder()


class _ByteDecoder:
    def __init__(self):
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        return self._utf8.decode(bytes([token]))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class FileTokenizer:
    """A Hugging Face ``tokenizer.json``.

    Raises:
        InputError: the package `tokenizers` is not installed.
        CheckpointError: no such file, or not a tokenizer.
    """

    def __init__(self, path: str | Path):
        try:
            from tokenizers import Tokenizer as Backend
        except ImportError:
            raise InputError(
                "A tokenizer.json is read by the package `tokenizers`, which is not installed. Run: pip install "
                "'ritornello[tokens]', or leave the tokenizer out to use bytes."
            ) from None
        if not Path(path).is_file():
            raise CheckpointError(f"There is no tokenizer file {str(path)!r}. Check the path.")
        try:
            self._backend: Any = Backend.from_file(str(path))
        except Exception as error:  # the package raises bare Exception
            raise CheckpointError(f"{str(path)!r} is no tokenizer.json: {error}. Give a whole one.") from None
        self.vocab_size: int = self._backend.get_vocab_size()

    def encode(self, text: str | bytes) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return self._backend.encode(text).ids

    def decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids)

    def decoder(self) -> Decoder:
        return _WindowDecoder(self)

    def save(self, path: str | Path) -> None:
        """Write it as a tokenizer.json."""
        _files.replace(path, lambda name: self._backend.save(name))


class _WindowDecoder:
    """Decodes the last ids together: a tokenizer's spaces and bytes depend on their neighbours, but on few of them."""

    def __init__(self, tokens: FileTokenizer):
        self._tokens, self._ids, self._shown = tokens, [], ""

    def add(self, token: int) -> str:
        self._ids.append(token)
        whole = self._tokens.decode(self._ids)
        if whole.endswith("\ufffd") and len(self._ids) < 16:  # perhaps the beginning of a character
            return ""
        new, self._shown = whole[len(self._shown) :], whole
        if len(self._ids) >= 12:
            self._ids = self._ids[-4:]
            self._shown = self._tokens.decode(self._ids)
        return new

    def flush(self) -> str:
        return self._tokens.decode(self._ids)[len(self._shown) :]
