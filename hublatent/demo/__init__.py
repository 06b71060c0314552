"""What app.py shows, without its page: every number and picture of the demo.

session.py       one face, one edit, several models: the rows
faces.py         a face that somebody brought or that a model drew, and its latents in each model
shelf.py         the models that are open, within a memory limit, and who may open which
catalogue.py     the models that are offered
scores.py        how well the models are read and edited: tables and figures
stored_codes.py  latents of sample faces, computed beforehand for models without an encoder
webpage.py       rows as HTML
events.py        what Gradio calls; app.py alone imports it
"""
