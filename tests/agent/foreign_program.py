"""A stand-in for a foreign mining program: a real process with children and an HTTP interface.

It hashes nothing: it counts up in a file while it would, as fast as a watcher needs to see whether
it goes on. What it does wrong is written in `habits.json` beside it. The programs' own interfaces
are followed as far as their documents tell; no real program was run.
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


class Program:
    """Counts while it is not paused; answers as T-Rex or XMRig would."""

    def __init__(self, here: Path, habits: dict[str, object]) -> None:
        self.here, self.habits, self.paused = here, habits, False

    def count(self, name: str) -> None:
        """Forever, into a file of this name."""
        number = 0
        with (self.here / name).open("wb", buffering=0) as file:
            while True:
                if not self.paused or self.habits.get("lies"):
                    number += 1
                    file.seek(0)
                    file.write(b"%d" % number)
                time.sleep(0.002)

    def serve(self, port: int) -> None:
        """The HTTP interface, in a thread."""
        program = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                program.note(self.path)
                if self.path.startswith("/control?pause="):
                    # Anything but the lower-case words is taken with thanks and does nothing.
                    program.paused = {"true": True, "false": False}.get(
                        self.path.partition("=")[2], program.paused
                    )
                    self.reply({"success": 1})
                else:
                    self.reply({"hashrate": 61e6, "accepted_count": 7, "rejected_count": 1})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                program.note(f"{self.path} {body['method']}")
                if self.headers["Authorization"] != f"Bearer {program.habits.get('token')}":
                    self.send_error(401)
                    return
                program.paused = body["method"] == "pause"
                self.reply({"id": 1, "error": None, "result": {"status": "OK"}})

            def reply(self, body: object) -> None:
                if program.habits.get("silent"):
                    time.sleep(30)
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Answers)
        Thread(target=server.serve_forever, daemon=True).start()

    def note(self, text: str) -> None:
        """Write down what was asked."""
        with (self.here / "asked").open("a") as file:
            file.write(text + "\n")


def main() -> None:
    """Run as the program would."""
    here = Path(__file__).resolve().parent
    habits = json.loads((here / "habits.json").read_text())
    if "--child" in sys.argv:
        os.setsid()  # as one that would hide
        Program(here, {}).count("child.count")
    (here / "argv").write_text(json.dumps(sys.argv[1:]))
    program = Program(here, habits)
    if "--config" in sys.argv:
        config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
        habits["token"] = config["http"]["access-token"]
        program.serve(config["http"]["port"])
    elif "--api-bind-http" in sys.argv:
        address = sys.argv[sys.argv.index("--api-bind-http") + 1]
        program.serve(int(address.rpartition(":")[2]))
    if habits.get("stays"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if habits.get("forks"):
        subprocess.Popen([sys.executable, __file__, "--child"])
    program.count("count")


if __name__ == "__main__":
    main()
