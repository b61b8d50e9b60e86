"""An RTSP server as cameras have one: Debian's GStreamer, a test picture as motion JPEG, a password.

    /usr/bin/python3 tests/peer_rtsp.py PORT [USER PASSWORD]

Prints `ready` once it listens. Needs Debian's python3-gi and gir1.2-gst-rtsp-server-1.0 (.ci/install-peers),
which are of the system's own Python; nothing of ours is imported here.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PICTURES = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 "
    "! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
)


def protect(server, factory, user, password):
    """Let in whoever knows the password, by Basic authentication."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    may = Gst.Structure.new_empty("user")
    for name in ("media.factory.access", "media.factory.construct"):
        may.set_value(name, True)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role_from_structure(may)
    factory.set_permissions(permissions)


def main():
    port, *secret = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=port, address="127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory(launch=PICTURES, shared=True)
    if secret:
        protect(server, factory, *secret)
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
