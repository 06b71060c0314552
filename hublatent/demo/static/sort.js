/* Faces are sorted here; the heaps are sent when something is asked for. Run for #sort. */
element.addEventListener('click', (event) => {
  const face = event.target.closest('[data-seed]');
  if (face) {
    face.dataset.heap = { '': 'with', with: 'without', without: '' }[face.dataset.heap];
    face.setAttribute('aria-label', `face ${face.dataset.seed}: ${face.dataset.heap || 'neither'}`);
    return;
  }
  const asked = event.target.closest('[data-ask]');
  if (!asked) return;
  const faces = [...element.querySelectorAll('[data-seed]')];
  const heap = (name) =>
    faces.filter((f) => f.dataset.heap === name).map((f) => Number(f.dataset.seed));
  trigger('select', { ask: asked.dataset.ask, with: heap('with'), without: heap('without') });
});
