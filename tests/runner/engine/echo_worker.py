"""A worker that draws nothing: it refuses every request with the name of its flow."""

import argparse
import socket

from runner.engine.framing import FrameDecoder, encode_frame
from runner.engine.messages import FromWorker, Generate, Ready, Refused, decode_message, encode_message
from tests.runner.fakes import CARD


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket-fd", type=int)
    gateway = socket.socket(fileno=parser.parse_known_args()[0].socket_fd)
    gateway.setblocking(True)

    def say(message: FromWorker) -> None:
        gateway.sendall(encode_frame(encode_message(message)))

    say(Ready(CARD))
    decoder = FrameDecoder()
    while data := gateway.recv(65536):
        for payload in decoder.receive_data(data):
            message = decode_message(payload)
            if isinstance(message, Generate):
                say(Refused(message.id, "flow", message.flow, "echo"))


if __name__ == "__main__":
    main()
