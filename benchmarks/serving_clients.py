"""Clients of a server, in a process of their own.

`python -m benchmarks.serving_clients gRPC|REST ADDRESS FOLDER CLIENTS SECONDS` sends
the files of FOLDER as they are and prints JSON. It needs no TensorFlow.
"""

import asyncio
import json
import pathlib
import sys
import time

METHOD = "/tensorflow.serving.PredictionService/Predict"
WARMUP_SECONDS = 1.0


def main():
    protocol, address, folder, clients, seconds = sys.argv[1:]
    bodies = [path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())]
    connect = {"gRPC": GrpcClient, "REST": RestClient}[protocol]
    result = asyncio.run(ask(connect, address, bodies, int(clients), float(seconds)))
    print(json.dumps(result))


async def ask(connect, address, bodies, clients, seconds):
    """Answers within the time, after a warm-up, and the latency of each."""
    start = time.perf_counter() + WARMUP_SECONDS
    end = start + seconds
    latencies = []

    async def client(number):
        async with connect(address) as send:
            while (now := time.perf_counter()) < end:
                await send(bodies[number % len(bodies)])
                done = time.perf_counter()
                if start <= done < end:
                    latencies.append(done - now)

    await asyncio.gather(*map(client, range(clients)))
    return {"answers": len(latencies), "seconds": seconds, "latencies": latencies}


class GrpcClient:
    """A connection of its own, that sends and receives bytes."""

    def __init__(self, address):
        import grpc

        # Channels of a process would share one connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(address, options)

    async def __aenter__(self):
        return self._channel.unary_unary(METHOD)

    async def __aexit__(self, *error):
        await self._channel.close()


class RestClient:
    def __init__(self, address):
        import aiohttp

        self._address = address
        self._session = aiohttp.ClientSession()

    async def __aenter__(self):
        async def send(body):
            async with self._session.post(self._address, data=body) as response:
                await response.read()
                response.raise_for_status()

        return send

    async def __aexit__(self, *error):
        await self._session.close()


if __name__ == "__main__":
    main()
