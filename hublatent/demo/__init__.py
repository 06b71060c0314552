"""What app.py shows.

session.py         one face, one edit, several models: the rows
verdicts.py        what an edit did to a face, in words
composing.py       several edits at once, and the way there as an animation
making.py          directions from faces that a visitor sorts into two heaps
atlas.py           a model's own samples in two dimensions
faces.py           a face that somebody brought or that a model drew, and its latents in each model
shelf.py           the models that are open, within a memory limit, and who may open which
catalogue.py       the models that are offered
hub_search.py      models of the Hub, found by words
visitors.py        turns of those who share a public app
scores.py          how well the models are read and edited: tables and figures
stored_latents.py  latents of sample faces, found beforehand for models without an encoder
names.py           what attributes are called, and what else people type for them
webpage.py         rows as HTML; its style and script are in static/

Only these need gradio:

page.py            what stands where, and which event calls what
events.py          what the events do
api.py             the endpoints for scripts and MCP clients
compose_tab.py, make_tab.py, map_tab.py: the tabs of these names
"""
