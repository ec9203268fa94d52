"""Names what a camera sees: python jetson_camera.py BUNDLE [CAMERA].

CAMERA is a number (USB) or a GStreamer pipeline (CSI). One frame is prepared while the GPU works
on the one before.
"""

import sys

import cv2

from effnet_edge import EngineRunner

CSI = (
    "nvarguscamerasrc ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1 ! nvvidconv "
    "! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink drop=1"
)


def main(bundle: str, camera: str = CSI) -> None:
    frames = cv2.VideoCapture(int(camera) if camera.isdigit() else camera)
    waiting = None
    with EngineRunner.load(bundle, rebuild=True) as run:
        while True:
            taken, frame = frames.read()
            if taken:
                started = run.submit(run.prepare(frame, bgr=True))
            if waiting is not None:
                best = int(waiting.result()[0].argmax())
                print(run.labels[best].name if run.labels else best, flush=True)
            if not taken:
                break
            waiting = started
    frames.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
