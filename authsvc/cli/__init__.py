"""The command line. Exit codes: 0 done, 1 failed (one line says why and what to do), 2 wrong usage."""

from typing import Any

import click

from authsvc.cli import audit, config, keys, serve, signing_keys, tokens
from authsvc.store import database


class _Commands(click.Group):
    """Turns what an operator can mend into one line and exit code 1; a defect of ours keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except database.FAILURES as error:
            if not database.is_down(error):
                raise
            raise click.ClickException(
                f"the database cannot be used: {database.cause(error)}. "
                "Check AUTHSVC_DATA_DIR and AUTHSVC_DATABASE_URL."
            ) from None
        except database.DatabaseTooNew as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise click.ClickException(f"{error.strerror or error}{where}") from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Mints short-lived tokens that open realtime sockets.

    Settings come from environment variables AUTHSVC_...; `check-config` lists them.
    """


main.add_command(serve.serve)
main.add_command(keys.keys)
main.add_command(signing_keys.signing_keys)
main.add_command(tokens.tokens)
main.add_command(audit.audit)
main.add_command(audit.usage)
main.add_command(config.check_config)
