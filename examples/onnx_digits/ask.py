"""Send one handwritten digit to the service: ``python ask.py URL``, the URL as ``leptonai status digits`` prints it."""

import json
import sys
import urllib.request

from sklearn.datasets import load_digits


def main(url: str) -> None:
    image, truth = load_digits().data[42].tolist(), int(load_digits().target[42])
    body = json.dumps({"image": [image]}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/predict", data=body)) as reply:
        print(f"answered {json.load(reply)['label'][0]}, it is {truth}")


if __name__ == "__main__":
    main(sys.argv[1])
