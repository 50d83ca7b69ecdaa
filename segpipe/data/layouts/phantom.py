"""The generated dataset, written on first use."""

from segpipe.config.data import Data, PhantomData
from segpipe.data.cases import Dataset
from segpipe.data.layouts.base import Layout
from segpipe.data.layouts.decathlon import Decathlon
from segpipe.data.phantom import write_phantom
from segpipe.registry import LAYOUTS


@LAYOUTS.register("phantom", help="generated abdomens, written to data.root on first use")
class Phantom(Layout):
    """Generated abdomens in the layout of the Decathlon."""

    def read(self, data: Data) -> Dataset:
        """Write the phantom where it does not exist yet, and read its cases."""
        assert isinstance(data, PhantomData)
        assert data.root is not None
        write_phantom(data.root, **data.phantom.model_dump())
        return Decathlon().read(data)
