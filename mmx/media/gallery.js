const cards = [...document.querySelectorAll('article')];
const [find, label, command, count] = ['find', 'label', 'command', 'count'].map(id => document.getElementById(id));

function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const card of cards) {
    const on = (!label.value || JSON.parse(card.dataset.labels).includes(label.value))
      && (!command.value || card.dataset.command === command.value)
      && words.every(word => card.dataset.text.includes(word));
    card.hidden = !on;
    shown += on;
  }
  count.textContent = `${shown} of ${cards.length}`;
}

function move(step) {
  const there = cards.filter(card => !card.hidden);
  if (!there.length) return;
  const at = there.indexOf(document.activeElement.closest('article'));
  const next = there[Math.max(0, Math.min(there.length - 1, at < 0 ? 0 : at + step))];
  next.focus();
  next.scrollIntoView({block: 'nearest'});
}

function clear() {
  find.value = label.value = command.value = '';
  filter();
  document.activeElement.blur();
}

function press(event, card) {
  if (event.key === 'Enter') {
    const about = card.querySelector('details');
    if (about) about.open = !about.open;
  } else if (event.key === ' ') {
    const player = card.querySelector('audio, video');
    if (!player) return;
    event.preventDefault();
    player.paused ? player.play() : player.pause();
  }
}

document.addEventListener('keydown', event => {
  if (event.key === 'Escape') clear();
  if (event.target.closest('input, select') || event.ctrlKey || event.metaKey || event.altKey) return;
  const steps = {j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1};
  if (event.key === '/') { event.preventDefault(); find.focus(); }
  else if (event.key in steps) { event.preventDefault(); move(steps[event.key]); }
  else if (cards.includes(document.activeElement)) press(event, document.activeElement);
});
// one sound at a time
document.addEventListener('play', event => {
  for (const other of document.querySelectorAll('audio, video')) if (other !== event.target) other.pause();
}, true);
for (const field of [find, label, command]) field.addEventListener('input', filter);
filter();

// what cards show is kept behind the page, each once, and handed to those that come near; it may still be on its way
const wanting = new Set();
function fill() {
  for (const card of wanting) {
    for (const one of card.querySelectorAll('[data-src]')) {
      const kept = document.getElementById(one.dataset.src);
      if (!kept || (document.readyState === 'loading' && !kept.nextElementSibling)) continue;
      one.src = kept.textContent;
      one.removeAttribute('data-src');
    }
    if (!card.querySelector('[data-src]')) wanting.delete(card);
  }
}
const near = new IntersectionObserver(entries => {
  for (const entry of entries.filter(one => one.isIntersecting)) {
    near.unobserve(entry.target);
    wanting.add(entry.target);
  }
  fill();
}, {rootMargin: '1000px'});
for (const card of cards) near.observe(card);
const arriving = new MutationObserver(fill);
arriving.observe(document.body, {childList: true});
document.addEventListener('DOMContentLoaded', () => { arriving.disconnect(); fill(); });
