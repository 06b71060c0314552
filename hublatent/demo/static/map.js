/* A picture follows the pointer, or the arrow keys; a click or Enter loads the sample into Edit.
   Run for #map. */
const cell = 48, columns = 32;
const points = () => [...element.querySelectorAll('circle[data-i]')];
const place = (point) => [point.cx.baseVal.value, point.cy.baseVal.value];
const pick = (point) => trigger('select', { seed: Number(point.dataset.i) });

function peek(point, x, y) {
  const picture = element.querySelector('.hl-peek');
  if (!picture) return;
  picture.hidden = !point;
  if (!point) return;
  const i = Number(point.dataset.i), box = picture.parentElement;
  const scale = picture.offsetWidth / cell || 2;
  picture.style.backgroundPosition =
    `${-(i % columns) * cell * scale}px ${-Math.floor(i / columns) * cell * scale}px`;
  picture.style.left = `${Math.min(x + 14, box.clientWidth - picture.offsetWidth)}px`;
  picture.style.top = `${y > box.clientHeight / 2 ? y - picture.offsetHeight - 14 : y + 14}px`;
}
element.addEventListener('pointermove', (event) => {
  const box = element.querySelector('.hl-plane')?.getBoundingClientRect();
  if (box) peek(event.target.closest('circle[data-i]'), event.clientX - box.left, event.clientY - box.top);
});
element.addEventListener('click', (event) => {
  const point = event.target.closest('circle[data-i]');
  if (point) pick(point);
});

/* The point that the keys have come to is told, and shown as if the pointer were there. */
function go(point) {
  element.querySelector('.hl-current')?.classList.remove('hl-current');
  point.classList.add('hl-current');
  const plot = point.ownerSVGElement, share = point.style.getPropertyValue('--p');
  const [x, y] = place(point).map((at) => (at / 100) * plot.clientWidth);
  peek(point, x, y);
  element.querySelector('.hl-at').textContent =
    `Face ${point.dataset.i}${share && `: ${plot.dataset.name} ${share}`}`;
}
/* The nearest point within 45° of a direction. */
function next(from, [right, down]) {
  const [x, y] = place(from);
  let found = from, least = Infinity;
  for (const point of points()) {
    const [dx, dy] = [place(point)[0] - x, place(point)[1] - y];
    const along = dx * right + dy * down, across = Math.abs(dx * down - dy * right);
    if (point === from || along < across || along <= 0 || along + across >= least) continue;
    [found, least] = [point, along + across];
  }
  return found;
}
const arrows = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
const pages = { PageDown: 1, PageUp: -1 };
element.addEventListener('keydown', (event) => {
  if (!event.target.matches('svg[tabindex]')) return;
  const all = points(), at = element.querySelector('.hl-current');
  if (event.key === 'Enter' && at) pick(at);
  else if (event.key in arrows) go(at ? next(at, arrows[event.key]) : all[0]);
  else if (event.key in pages)
    go(at ? all[(Number(at.dataset.i) + pages[event.key] + all.length) % all.length] : all[0]);
  else return;
  event.preventDefault();
});
element.addEventListener('focusout', () => peek(null));
