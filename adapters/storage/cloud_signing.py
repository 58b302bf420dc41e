"""Addresses that work for a while: Azure's service SAS and Google's V4 signature.

obstore signs too, but its addresses break on keys with `?`, `#` or characters beyond ASCII.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import quote, urlencode, urlsplit

from server.ports.storage import AzureContainer

_AZURE_VERSION = "2022-11-02"


def azure_address(address: str, place: AzureContainer, key: str, until: datetime) -> str:
    """`address` of the blob with a read-only SAS. Raise ValueError for a key that is not base64.

    Without a start time: the account's clock may be a little behind ours.
    """
    expiry = until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    resource = f"/blob/{place.account}/{place.container}/{key}"
    # Permissions, start, expiry, resource, identifier, IP, protocol, version, kind, snapshot, encryption scope and the
    # five headers of the answer that may be replaced.
    fields = ("r", "", expiry, resource, "", "", "", _AZURE_VERSION, "b", "", "", "", "", "", "", "")
    secret = decoded_key(place.account_key)
    signature = hmac.new(secret, "\n".join(fields).encode(), hashlib.sha256).digest()
    query = {
        "sp": "r",
        "se": expiry,
        "sv": _AZURE_VERSION,
        "sr": "b",
        "sig": base64.b64encode(signature).decode(),
    }
    return f"{address}?{urlencode(query)}"


def decoded_key(account_key: str) -> bytes:
    """Raise ValueError, without the key in it."""
    try:
        return base64.b64decode(account_key, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


def google_address(address: str, *, email: str, private_key: str, seconds: int, now: datetime) -> str:
    """`address` of the object with a V4 signature for GET. Raise ValueError, TypeError for a wrong key."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    moment = now.astimezone(UTC)
    stamp, scope = moment.strftime("%Y%m%dT%H%M%SZ"), f"{moment:%Y%m%d}/auto/storage/goog4_request"
    parts = urlsplit(address)
    parameters = {
        "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
        "X-Goog-Credential": f"{email}/{scope}",
        "X-Goog-Date": stamp,
        "X-Goog-Expires": str(seconds),
        "X-Goog-SignedHeaders": "host",
    }
    query = "&".join(f"{name}={quote(value, safe='-._~')}" for name, value in parameters.items())
    request = "\n".join(("GET", parts.path, query, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"))
    digest = hashlib.sha256(request.encode()).hexdigest()
    signed = f"GOOG4-RSA-SHA256\n{stamp}\n{scope}\n{digest}"
    key = load_pem_private_key(private_key.encode(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("not an RSA key")
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()).hex()
    return f"{address}?{query}&X-Goog-Signature={signature}"
