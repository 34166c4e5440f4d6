"""The texts of messages: a folder per language, a file per kind; the first line is the subject, the body follows.

`{name}` stands for a value; only values are filled in, so that a value with braces stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable

from payflow.services.notification.domain import DEFAULT_LANGUAGE, Kind


class FileTemplates:
    """See ports.Templates."""

    def __init__(self, texts: Mapping[str, Mapping[Kind, tuple[str, str]]]) -> None:
        for language, kinds in texts.items():
            missing = sorted(set(Kind) - kinds.keys())
            if missing:
                raise ValueError(f"language {language} has no text for {', '.join(missing)}")
        self._texts = texts

    @classmethod
    def load(cls) -> FileTemplates:
        """Read the texts that come with the service. Raises ValueError when one is missing."""
        folders = [entry for entry in resources.files(__name__).iterdir() if entry.is_dir() and entry.name.isalpha()]
        return cls({folder.name: _read_folder(folder) for folder in folders})

    def languages(self) -> frozenset[str]:
        return frozenset(self._texts)

    def render(self, kind: Kind, language: str, values: Mapping[str, str]) -> tuple[str, str]:
        subject, body = self._texts.get(language, self._texts[DEFAULT_LANGUAGE])[kind]
        return subject.format_map(values), body.format_map(values)


def _read_folder(folder: Traversable) -> dict[Kind, tuple[str, str]]:
    texts = {}
    for kind in Kind:
        file = folder.joinpath(f"{kind}.txt")
        if file.is_file():
            subject, _, body = file.read_text(encoding="utf-8").partition("\n\n")
            texts[kind] = (subject.strip(), body.strip())
    return texts
