"""A broker in a thread of this process: for the demo and for tests of those who call it."""

import asyncio
import threading
from typing import Self

from keybroker.app import App


class BackgroundApp:
    """Runs an App from `start` to `stop` on an event loop of its own. Also a context manager."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="broker")

    @property
    def grpc_address(self) -> str:
        """Where the broker serves."""
        return f"127.0.0.1:{self.app.grpc_port}"

    @property
    def http_url(self) -> str:
        """Where /metrics, /livez and /readyz are."""
        return f"http://127.0.0.1:{self.app.http_port}"

    def start(self) -> Self:
        """Returns when the broker serves. Raises what kept it from starting."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def stop(self) -> None:
        """Drains, and returns when the broker has stopped."""
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  # handed to the thread that starts or stops
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await self.app.start()
        self._started.set()
        await self._stopping.wait()
        await self.app.stop()
