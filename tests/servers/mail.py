"""A mail server that keeps what it takes: PORT FOLDER [plain|starttls|tls] [CERTIFICATE AND KEY].

Mail is taken from the user "larder" with the password "opens-mail" alone, and appended to the file "mail".
"""

import ssl
import sys
import threading
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

port, folder, kind = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]


class Keep:
    """Appends each mail to a file."""

    async def handle_DATA(self, server, session, envelope):
        with open(folder / "mail", "ab") as file:
            file.write(envelope.original_content)
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    """Lets one user in."""
    is_right = isinstance(data, LoginPassword) and (
        (data.login, data.password) == (b"larder", b"opens-mail")
    )
    return AuthResult(success=is_right, handled=False)


context = None
if kind != "plain":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[4])
Controller(
    Keep(),
    hostname="127.0.0.1",
    port=port,
    ssl_context=context if kind == "tls" else None,
    tls_context=context if kind == "starttls" else None,
    require_starttls=kind == "starttls",
    authenticator=authenticate,
    auth_required=True,
    auth_require_tls=kind == "starttls",
).start()
threading.Event().wait()
