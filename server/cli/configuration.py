"""The server's settings as commands use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from server.cli.output import Failed

if TYPE_CHECKING:
    from server.settings import Settings


def settings_from(**overrides: Any) -> Settings:
    """The settings of this machine; raises Failed with every problem in them."""
    from server.settings import SettingsError, load_settings

    try:
        return load_settings(**overrides)
    except SettingsError as error:
        raise Failed(str(error)) from error
