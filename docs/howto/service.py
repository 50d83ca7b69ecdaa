"""Segment scans over HTTP: `SEGPIPE_CHECKPOINT=best.ckpt uvicorn service:app`."""

import asyncio
import base64
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from segpipe import Predictor
from segpipe.errors import SegpipeError

LARGEST = int(os.environ.get("SEGPIPE_MIB", "512")) * 2**20  # bytes of an upload
SECONDS = float(os.environ.get("SEGPIPE_SECONDS", "600"))  # for a scan, waiting included
predictor = Predictor.load(os.environ["SEGPIPE_CHECKPOINT"])
workers = ThreadPoolExecutor(int(os.environ.get("SEGPIPE_WORKERS", "1")))
app = FastAPI(title="segpipe")


@app.exception_handler(HTTPException)
async def refuse(_request: Request, error: HTTPException) -> JSONResponse:
    """Answer a mistake as JSON."""
    return JSONResponse({"error": error.detail}, error.status_code)


def segment(scan: bytes) -> dict[str, Any]:
    """Return the mask of a scan, a packed NIfTI file in base64, and the volumes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mask.nii.gz")
        found = predictor.save_mask(scan, file)
        mask = base64.b64encode(file.read_bytes()).decode()
    volumes = {}
    for index, name in enumerate(predictor.plan.label_names, start=1):
        volumes[name] = int((found.labels == index).sum()) * found.grid.voxel_ml
    return {"mask": mask, "volumes_ml": volumes}


@app.post("/segment")
async def upload(request: Request) -> dict[str, Any]:
    """Segment the scan that is the body of a request."""
    scan = bytearray()
    async for part in request.stream():
        scan += part
        if len(scan) > LARGEST:
            raise HTTPException(413, f"the scan has more than {LARGEST} bytes")
    work = asyncio.get_running_loop().run_in_executor(workers, segment, bytes(scan))
    try:
        return await asyncio.wait_for(work, SECONDS)
    except TimeoutError:
        raise HTTPException(504, f"the scan took more than {SECONDS:g} s") from None
    except SegpipeError as error:
        raise HTTPException(422, str(error)) from None
