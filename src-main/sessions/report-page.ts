/** Style and script of the report. Both are written into the file; the script is let in by its hash. */

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

/** For text and for attributes in double quotes: names of sessions are written by people. */
export const escapeText = (text: string): string => text.replaceAll(/[&<>"]/g, (character) => entities[character]);

export const reportStyle = `
:root {
  --back: #f3f5f8; --app-panel: #fff; --app-line: #dde2e9; --app-text: #1a2029; --app-quiet: #5b6573; --chart-grid: #e8ecf1;
  --series-0: #5a6472; --series-1: #0068b0; --series-2: #d98500; --series-3: #c94a00;
  --series-4: #00855f; --series-5: #2b9fd8; --series-6: #b4568c; --series-7: #8a7a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #101318; --app-panel: #181c23; --app-line: #2a303a; --app-text: #e7eaef; --app-quiet: #9aa5b4; --chart-grid: #262c36;
    --series-0: #a9b3c1; --series-1: #4c9fe6; --series-2: #f0a830; --series-3: #f2774b;
    --series-4: #2fbf8f; --series-5: #7fd0f5; --series-6: #dd8fbd; --series-7: #d8ca3f;
  }
}
* { box-sizing: border-box; }
body { background: var(--back); color: var(--app-text); font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; margin: 0 auto; max-width: 1500px; padding: 24px; }
h1 { font-size: 22px; margin: 0; } h2 { font-size: 16px; margin: 28px 0 10px; } header p, .quiet { color: var(--app-quiet); margin: 4px 0 16px; }
.charts { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); }
figure { background: var(--app-panel); border: 1px solid var(--app-line); border-radius: 6px; margin: 0; padding: 12px; }
figcaption { font-weight: 600; margin-bottom: 4px; } svg { display: block; height: auto; width: 100%; }
svg text { fill: var(--app-text); font-variant-numeric: tabular-nums; } svg text.quiet { fill: var(--app-quiet); }
svg text.name { paint-order: stroke; stroke: var(--app-panel); stroke-width: 4px; }
.scroll { background: var(--app-panel); border: 1px solid var(--app-line); border-radius: 6px; overflow: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100%; }
th, td { border-bottom: 1px solid var(--app-line); padding: 5px 7px; text-align: left; white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; } td.figure { text-align: right; } td:last-child { white-space: normal; }
th button { background: none; border: 0; color: inherit; cursor: pointer; font: inherit; font-weight: 600; padding: 0; }
th[aria-sort="ascending"] button::after { content: " ↑"; } th[aria-sort="descending"] button::after { content: " ↓"; }
dl { display: grid; gap: 2px 24px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); margin: 0; }
dl div { display: flex; gap: 12px; justify-content: space-between; } dt { color: var(--app-quiet); } dd { font-variant-numeric: tabular-nums; margin: 0; overflow-wrap: anywhere; text-align: right; }
:focus-visible { outline: 2px solid var(--series-1); outline-offset: 2px; }
@media print { body { max-width: none; padding: 0; } .charts { grid-template-columns: 1fr 1fr; } }
`;

/** Sorts by the exact figures; what does not apply stands last in either direction. */
export const reportScript = `
'use strict';
for (const button of document.querySelectorAll('th button')) button.addEventListener('click', () => {
  const head = button.closest('th');
  const isDescending = head.getAttribute('aria-sort') === 'ascending';
  for (const other of head.parentNode.children) other.setAttribute('aria-sort', 'none');
  head.setAttribute('aria-sort', isDescending ? 'descending' : 'ascending');
  const valueOf = (row) => row.children[button.dataset.column].dataset.value;
  const body = head.closest('table').tBodies[0];
  const sorted = [...body.rows].sort((a, b) => {
    const [x, y] = [valueOf(a), valueOf(b)];
    if (x === '' || y === '') return (x === '') - (y === '');
    const difference = Number.isFinite(Number(x)) && Number.isFinite(Number(y)) ? x - y : x.localeCompare(y);
    return isDescending ? -difference : difference;
  });
  body.append(...sorted);
});
`;
