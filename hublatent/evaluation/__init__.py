"""How well a latent space is read and edited, and how sure that is.

subjects.py  the checkpoints, and which are trainings of one model
readings.py  attributes read in latents; edits.py, controls.py: images, read by judges.py
table.py     the one long table of all readings; run.py fills it, part by part
outcomes.py  onsets and outcomes; claims.py: contrasts and verdicts; report.py: the page
audit.py     one direction; defaults.py: what edits best; replication.py: the paper's Table 1
metrics/     scores of disentanglement, each as its paper defines it
"""
