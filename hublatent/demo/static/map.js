/* A picture follows the pointer; a click loads the sample into Edit. Run for #map. */
const cell = 48, columns = 32;
element.addEventListener('pointermove', (event) => {
  const peek = element.querySelector('.hl-peek');
  if (!peek) return;
  const point = event.target.closest('circle[data-i]');
  peek.hidden = !point;
  if (!point) return;
  const i = Number(point.dataset.i), box = peek.parentElement.getBoundingClientRect();
  const scale = peek.offsetWidth / cell || 2;
  peek.style.backgroundPosition =
    `${-(i % columns) * cell * scale}px ${-Math.floor(i / columns) * cell * scale}px`;
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  peek.style.left = `${Math.min(x + 14, box.width - peek.offsetWidth)}px`;
  peek.style.top = `${y > box.height / 2 ? y - peek.offsetHeight - 14 : y + 14}px`;
});
element.addEventListener('click', (event) => {
  const point = event.target.closest('circle[data-i]');
  if (point) trigger('select', { seed: Number(point.dataset.i) });
});
