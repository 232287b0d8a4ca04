"""A line between two TCP ports that delays what it carries.

    slow_line.py FROM TO MILLISECONDS

Each direction delivers bytes MILLISECONDS after it got them, in order. While the file named by SLOW_LINE_CUT is there, it
carries nothing; connections stay.
"""

import asyncio, os, sys

from_port, to_port, delay = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000
cut = os.environ.get("SLOW_LINE_CUT", "/nonexistent")


async def carry(reader, writer):
    queue = asyncio.Queue(1024)
    loop = asyncio.get_running_loop()

    async def deliver():
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0, due - loop.time()))
            while os.path.exists(cut):
                await asyncio.sleep(0.05)
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    task = asyncio.create_task(deliver())
    try:
        while True:
            data = await reader.read(65536)
            await queue.put((loop.time() + delay, data))
            if not data:
                break
        await task
    except (ConnectionError, OSError):
        writer.close()


async def connected(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", to_port)
    await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))


async def main():
    server = await asyncio.start_server(connected, "127.0.0.1", from_port)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
