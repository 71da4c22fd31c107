"""An RTSP camera for tests, run under the system's Python, which has GStreamer's bindings: PORT FILE CODEC ADDRESS.

It serves the ``h264`` or ``h265`` of an MP4 file at ``rtsp://ADDRESS:PORT/cam``, to each client from its beginning.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

port, path, codec, address = sys.argv[1:]
Gst.init(None)
server = GstRtspServer.RTSPServer(address=address, service=port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f"( filesrc location={path} ! qtdemux ! {codec}parse ! rtp{codec}pay name=pay0 pt=96 config-interval=-1 )"
)
server.get_mount_points().add_factory("/cam", factory)
if not server.attach(None):
    sys.exit(f"port {port} is taken")
print("ready", flush=True)
GLib.MainLoop().run()
