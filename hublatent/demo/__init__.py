"""What app.py shows. From upload to edited picture: page.py, edit_tab.py, faces.py, session.py.

Pictures and numbers, without Gradio: shelf.py (the models on offer), faces.py (a picture and its
latents), session.py (one edit in several models), verdicts.py (an edit in words), composing.py,
making.py, hub_search.py. Their HTML: webpage.py, names.py, templates/ and static/.
The page: page.py, a file for each tab, wiring.py (parts and handlers), api.py, visitors.py (turns
of strangers).
"""
