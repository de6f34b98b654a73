"""The server's own pages: which cases there are, how good their results probably are, who has them.

Made by the server and readable without a script; a small one finds cases and keeps the progress of
a training run up to date. Nothing is loaded from elsewhere.

* ``site.py``         what every page needs, and how what is not possible is told
* ``work_pages.py``   which page answers which address
* ``work_forms.py``   what the forms change
* ``case_rows.py``    what the work list shows of a case, and in which order
* ``forms.py``        forms that only this server's own pages can send
* ``training_view.py``   how far a training run is, and which versions there are
"""
