"""What 3D Slicer's plugin does behind its buttons, call by call and in the plugin's own order.

The client library is the plugin's own, from MONAI Label's wheel. The plugin itself
(``MONAILabel.py``) and Slicer's ``SampleData.py`` need Slicer; what is here repeats their calls.
"""

from __future__ import annotations

import hashlib
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from support.label_servers import slicer_library


@dataclass
class Slicer:
    """A running Slicer, as the server sees it.

    Attributes:
        url: What stands in the field "MONAI Label server".
        folder: Its temporary folder; ``cache`` in it is what Slicer keeps of downloads.
        user: What is written into the login dialog.
        password: What is written into the login dialog.
        token: The last login's.
    """

    url: str
    folder: Path
    user: str = ""
    password: str = ""
    token: Any = field(default=None, repr=False)

    def connect(self) -> Any:
        """``MONAILabelLogic._client``: a new client for each button, logged in if need be."""
        client = slicer_library().MONAILabelClient(
            self.url, str(self.folder), self.user or "user-xyz"
        )
        if client.auth_enabled():
            if self.token:
                client.update_auth(self.token)
            if not self.token or not client.auth_valid_token():
                self.token = client.auth_token(self.user, self.password)
                client.update_auth(self.token)
        return client

    def press_next_sample(self, strategy: str = "worst_first") -> Any:
        """``onNextSampleButton``: return the sample, and the file of its image."""
        sample = self.connect().next_sample(strategy, {})
        if not sample.get("id"):
            return sample, None
        assert not sample.get("path")
        uri = f"{self.url}/datastore/image?image={quote_plus(sample['id'])}"
        name = sample.get("name", sample["id"])
        file = self.download(uri, name, sample.get("checksum"))
        self.connect().datastore()  # for a label "original"
        return sample, file

    def download(self, uri: str, name: str, checksum: str | None) -> Path:
        """``SampleDataLogic.downloadFile``: what is in the cache is not fetched again."""
        file = self.folder / "cache" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.stat().st_size == 0:
            urllib.request.urlretrieve(uri, file)
        if checksum is not None:
            kind, digest = checksum.split(":")
            found = hashlib.new(kind, file.read_bytes()).hexdigest()
            if found != digest:
                file.unlink()
                return self.download(uri, name, checksum)
        return file

    def press_run(self, sample: Any) -> Any:
        """``onClickSegmentation``: return the file of the result, and what was said of it."""
        parameters = {"result_extension": ".nrrd", "result_dtype": "uint8"}
        models = self.connect().info()["models"]
        (model,) = [
            name
            for name, about in models.items()
            if about["type"] == "segmentation"
        ]
        return self.connect().infer(model, sample["id"], parameters)

    def press_submit(self, sample: Any, label: Path, names: list[str]) -> Any:
        """``onSaveLabel``."""
        label_info = [
            {"name": name, "idx": number}
            for number, name in enumerate(names, start=1)
        ]
        answer = self.connect().save_label(
            sample["id"], str(label), params={"label_info": label_info}
        )
        self.connect().info()
        return answer

    def upload_session(self, image: Path) -> Any:
        """``onUploadImage(session=True)``, and then ``onClickSegmentation``."""
        session = self.connect().create_session(str(image))["session_id"]
        assert self.connect().get_session(session)
        model = next(iter(self.connect().info()["models"]))
        return self.connect().infer(
            model,
            "",
            {"result_extension": ".nrrd", "result_dtype": "uint8"},
            session_id=session,
        )
