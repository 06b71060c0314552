"""What app.py shows.

Pictures and numbers: session.py (one edit in several models), composing.py, making.py, atlas.py,
faces.py, verdicts.py (an edit in words), scores.py, shelf.py (models on offer), hub_search.py.
Their HTML: webpage.py, names.py, and static/. Only these need gradio: page.py (what stands where),
events.py (what happens), api.py, visitors.py (turns of strangers), and the tabs.
"""
