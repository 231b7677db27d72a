/** A session as one HTML file: charts and a table that sorts, readable offline, with no request to anything. */
import { createHash } from 'node:crypto';
import { formatMetric } from '../contract/format.ts';
import type { Metric, Point } from '../contract/metrics.ts';
import type { Environment } from '../contract/session.ts';
import { gradeMeaning } from '../contract/warnings.ts';
import { levelBars, tradeOff } from './report-charts.ts';
import { escapeText, reportScript, reportStyle } from './report-page.ts';
import { shownFields, shownMetrics } from './shown.ts';

export interface ReportContent {
  readonly name: string;
  readonly environment: Environment;
  readonly points: readonly Point[];
  /** All there are, in the order of the catalogue. */
  readonly levels: readonly string[];
  /** Of the session: what they held is not in the report. */
  readonly damagedLines: readonly number[];
}

export function toReport({ name, environment, points, levels, damagedLines }: ReportContent): string {
  const named = [...new Set([...levels, ...points.map(({ config }) => config.level)])];
  const phases = [...new Set(points.map(({ config }) => config.phase))];
  const charts = phases.flatMap((phase) => {
    const ofPhase = points.filter(({ config }) => config.phase === phase);
    return [
      figure(`Memory against error, ${phase}`, tradeOff(ofPhase, named)),
      figure(`Levels, ${phase}: medians over their points`, levelBars(ofPhase, named)),
    ];
  });
  const hash = createHash('sha256').update(reportScript).digest('base64');
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${hash}'; img-src data:; base-uri 'none'; form-action 'none'`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>${escapeText(name)} · FastMQA</title>
<style>${reportStyle}</style>
</head>
<body>
<header>
<h1>${escapeText(name)}</h1>
<p>${escapeText(summaryOf(points, environment))}</p>${damagedLines.length > 0 ? `\n<p role="note">Damaged lines of the session, left out here: ${damagedLines.join(', ')}.</p>` : ''}
</header>
<main>
<div class="charts">
${charts.join('\n')}
</div>
<h2>All points</h2>
${table(points)}
${controls(points)}
<h2>Machine</h2>
${machine(environment)}
</main>
<script>${reportScript}</script>
</body>
</html>
`;
}

function summaryOf(points: readonly Point[], { startedAt, cpu }: Environment): string {
  const count = (outcome: Point['outcome']): number => points.filter((point) => point.outcome === outcome).length;
  const others = (['failed', 'skipped'] as const).flatMap((outcome) =>
    count(outcome) > 0 ? [`${count(outcome)} ${outcome}`] : [],
  );
  const date = startedAt.slice(0, 16).replace('T', ' ');
  return [`${count('measured')} points measured`, ...others, `on ${cpu}`, `${date} UTC`].join(' · ');
}

const figure = (caption: string, svg: string | undefined): string =>
  svg === undefined ? '' : `<figure><figcaption>${escapeText(caption)}</figcaption>${svg}</figure>`;

function table(points: readonly Point[]): string {
  const fields = shownFields(points);
  const shown = shownMetrics(points);
  const head = [...fields.map(({ name }) => name), ...shown.map(({ label }) => label), 'grade', 'outcome'].map(
    (label, column) =>
      `<th scope="col" aria-sort="none"><button type="button" data-column="${column}">${escapeText(label)}</button></th>`,
  );
  const rows = points.map((point) => {
    const cells = [
      ...fields.map(({ read }) => textCell(read(point))),
      ...shown.map((metric) => figureCell(metric, point)),
      textCell(point.error?.grade, point.error && gradeMeaning[point.error.grade]),
      textCell(point.reason === undefined ? point.outcome : `${point.outcome}: ${point.reason}`),
    ];
    return `<tr data-id="${escapeText(point.id)}">${cells.join('')}</tr>`;
  });
  return `<div class="scroll" role="region" aria-label="All points" tabindex="0"><table>
<thead><tr>${head.join('')}</tr></thead>
<tbody>
${rows.join('\n')}
</tbody>
</table></div>`;
}

const textCell = (value: string | number | boolean | undefined, title?: string): string =>
  `<td data-value="${escapeText(String(value ?? ''))}"${title ? ` title="${escapeText(title)}"` : ''}>${escapeText(String(value ?? ''))}</td>`;

/** The exact figure is what is sorted by, and what a reader of the file finds. The head of the column names tokens already. */
function figureCell({ read, unit }: Metric, point: Point): string {
  const value = read(point);
  return value === undefined
    ? '<td class="figure" data-value=""></td>'
    : `<td class="figure" data-value="${value}">${escapeText(formatMetric(value, unit).replace(/ ?tokens\/s$/, ''))}</td>`;
}

/** What no method should resemble: attention-spec C. */
function controls(points: readonly Point[]): string {
  const found = points.find((point) => point.controls)?.controls;
  if (!found) return '';
  const { zeroOutput, uniformAttention, independentLayer } = found;
  return `<p class="quiet">Controls, relative L2: all-zero output ${zeroOutput.toFixed(2)}, uniform attention ${uniformAttention.toFixed(2)}, an independent layer ${independentLayer.toFixed(2)}.</p>`;
}

/** Figures with a unit are read with it; the rest stands as it was recorded. */
const unitOf: Readonly<Record<string, Metric['unit']>> = {
  memoryBytes: 'bytes',
  fmaFlopsPerSecond: 'FLOP/s',
  readBytesPerSecond: 'bytes/s',
};

const machine = (environment: Environment): string =>
  `<dl>${Object.entries(environment)
    .map(([name, value]) => {
      const unit = unitOf[name];
      const words = unit && typeof value === 'number' ? formatMetric(value, unit) : String(value);
      return `<div><dt>${escapeText(name)}</dt><dd>${escapeText(words)}</dd></div>`;
    })
    .join('')}</dl>`;
