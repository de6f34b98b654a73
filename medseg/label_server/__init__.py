"""``medseg label``: clinicians correct results through MONAI Label.

The only part of medseg that knows MONAI Label. Its server is the real one; what medseg adds:

* ``server.py``      starts it on a trained bundle and scans
* ``shims.py``, ``environment.py``   make MONAI Label 0.8.5 run on current libraries
* ``app.py``, ``tasks.py``   MONAI Label's app: inference, training, scores, next sample
* ``endpoints.py``, ``background.py``   MONAI Label's endpoints in threads, its tasks in processes
* ``datastore.py``   MONAI Label's datastore over ``cases.py`` or ``dicomweb.py``, and
  ``labels.py``
* ``label_upload.py``   an uploaded label map → label indices on the scan's grid
* ``model.py``, ``scores.py``   the served version's results, and how good they probably are
* ``retraining.py``, ``versions.py``   a training run writes a new version beside the served one
* ``gateway.py``, ``request_checks.py``, ``users.py``   who may ask for what; ``audit.py``
  remembers it
* ``pages``         the work list, and what the server's own pages show and change
* ``proposals.py``, ``case_pictures.py``   what the bundle made of cases, where people look for it
* ``ohif.py``        OHIF, offline, with a configuration of medseg's
* ``logs.py``        keeps the texts of others' errors, which may name patients, out of all output
* ``state.py``, ``store.py``   where all of this is kept; ``worklist.py``, ``scan_list.py`` and
  ``label_history.py`` say what the store knows, ``former_state.py`` what earlier releases knew
* ``strategies.py``   which case comes next, and to whom
* ``links.py``       how 3D Slicer fetches an image without a header
"""
