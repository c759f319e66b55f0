"""What leaves the machine through the API without passing ops is masked here, with the vault that ops uses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from leptonai.ops.logs.privacy import Masker

log = logging.getLogger(__name__)


class Mask:
    """Opens the vault at its first use. Safe from any thread."""

    def __init__(self, vault: Path | None, patterns: Mapping[str, str]) -> None:
        """``vault`` None: what is masked cannot be turned back."""
        self._vault, self._patterns = vault, patterns
        self._masker: Masker | None = None
        self._kept = 0
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Each text without its secrets, which `leptonai unmask` knows from now on. SpecError: the vault is damaged."""
        with self._lock:
            masker = self._open()
            masked = [masker.mask(text) for text in texts]
            if self._vault is not None and masker.made != self._kept:
                try:
                    masker.save(self._vault)
                    self._kept = masker.made
                except OSError as e:
                    log.warning("%s cannot be written, what is masked cannot be turned back: %s", self._vault, e)
            return masked

    def _open(self) -> Masker:
        if self._masker is None:
            self._masker = Masker.open(self._vault, self._patterns) if self._vault else Masker(self._patterns)
        return self._masker
