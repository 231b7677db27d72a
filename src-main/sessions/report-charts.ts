/** Charts of the report as SVG text, over the same series that the window paints. */

import { type Axis, axisTick } from '../../src-renderer/series/axis.ts';
import { judgedBy, kindOfPoints } from '../../src-renderer/series/kind.ts';
import { headlineMetrics, levelBarsOf, rowFields } from '../../src-renderer/series/levels.ts';
import { markOf } from '../../src-renderer/series/marks.ts';
import { axisLabel } from '../../src-renderer/series/metric.ts';
import { type Box, placeMarks, placeNames, shareOf, toX, toY } from '../../src-renderer/series/plane.ts';
import { shapePath } from '../../src-renderer/series/shapes.ts';
import { tradeOffOf } from '../../src-renderer/series/trade-off.ts';
import { formatMetric } from '../contract/format.ts';
import type { Point } from '../contract/metrics.ts';
import { escapeText } from './report-page.ts';

const width = 720;
const box: Box = { left: 74, top: 14, right: width - 24, bottom: 356 };

const tenth = (pixels: number): string => String(Math.round(10 * pixels) / 10);

/** @returns undefined where nothing can be drawn. */
export function tradeOff(points: readonly Point[], levels: readonly string[]): string | undefined {
  const ids = { x: 'multiplierVsF32Mha', y: judgedBy[kindOfPoints(points)], size: 'tokensPerSecond' };
  const { x, y, size, groups, frontiers } = tradeOffOf(points, ids, levels);
  const marks = groups.flatMap((group) => group.marks);
  if (marks.length === 0) return undefined;
  const placed = placeMarks(marks, x, y, box);
  const drawn = placed.map(({ mark, cx, cy, radius }) => {
    const { colour, shape } = markOf(mark.level, levels);
    const figures = [x.metric, y.metric, size].map((metric) => {
      const value = metric.read(mark.point);
      return `${metric.title} ${value === undefined ? 'none' : formatMetric(value, metric.unit)}`;
    });
    const words = `${mark.level}, ${mark.point.config.seqLen} tokens, batch ${mark.point.config.batch}: ${figures.join(', ')}`;
    return `<path class="mark" d="${shapePath(shape, radius)}" transform="translate(${tenth(cx)} ${tenth(cy)})" fill="${colour}" stroke="var(--app-panel)"><title>${escapeText(words)}</title></path>`;
  });
  // One name a level; where marks are many, colour and shape have to do.
  const firstOfLevel = placed.filter(
    ({ mark }, i) => placed.findIndex((other) => other.mark.level === mark.level) === i,
  );
  const names = placeNames(firstOfLevel, box).map(
    ({ text, x: left, y: top, isLeft }) =>
      `<text class="name" x="${tenth(left)}" y="${tenth(top)}" font-size="12"${isLeft ? ' text-anchor="end"' : ''}>${escapeText(text)}</text>`,
  );
  const lines = frontiers.map((frontier) => {
    const places = frontier.map((mark) => `${tenth(toX(x, box, mark.x))},${tenth(toY(y, box, mark.y))}`).join(' ');
    return `<polyline points="${places}" fill="none" stroke="var(--app-text)" stroke-width="1.5" stroke-dasharray="5 4"/>`;
  });
  return svg(
    chartHeight,
    `${marks.length} points, ${x.metric.title} against ${y.metric.title}; size of a mark: ${size.title}`,
    [...axesOf(x, y), ...lines, ...drawn, ...names],
  );
}

function axesOf(x: Axis, y: Axis): string[] {
  const inside = ({ domain: [from, to], ticks }: Axis): number[] => ticks.filter((tick) => tick >= from && tick <= to);
  const vertical = inside(x).map((tick) => {
    const at = tenth(toX(x, box, tick));
    return `<path d="M${at},${box.top}V${box.bottom}" stroke="var(--chart-grid)"/><text class="quiet" x="${at}" y="${box.bottom + 16}" font-size="11" text-anchor="middle">${axisTick(x, tick)}</text>`;
  });
  const horizontal = inside(y).map((tick) => {
    const at = toY(y, box, tick);
    return `<path d="M${box.left},${tenth(at)}H${box.right}" stroke="var(--chart-grid)"/><text class="quiet" x="${box.left - 8}" y="${tenth(at + 4)}" font-size="11" text-anchor="end">${axisTick(y, tick)}</text>`;
  });
  const middle = (box.top + box.bottom) / 2;
  return [
    ...vertical,
    ...horizontal,
    `<text x="${(box.left + box.right) / 2}" y="${box.bottom + 36}" font-size="12" text-anchor="middle">${escapeText(axisLabel(x.metric))}</text>`,
    `<text transform="translate(14 ${middle}) rotate(-90)" font-size="12" text-anchor="middle">${escapeText(axisLabel(y.metric))}</text>`,
  ];
}

const namesRoom = [150, 260] as const;
const nameCharacter = 6.6;
const headHeight = 36;
/** Few levels get the room that the chart beside them takes. */
const rowHeights = [26, 84] as const;
const chartHeight = 400;
const thickestBar = 26;
/** Share of a column that the longest bar takes; the rest is for its figure. */
const longestShare = 0.6;

/** @returns undefined where nothing can be drawn. */
export function levelBars(points: readonly Point[], levels: readonly string[]): string | undefined {
  const columns = levelBarsOf(points, headlineMetrics(kindOfPoints(points)), levels, {
    fields: rowFields(points),
  });
  const rows = columns[0]?.bars ?? [];
  if (columns.every(({ bars }) => bars.every(({ value }) => value === undefined))) return undefined;
  const longest = Math.max(0, ...rows.map(({ label }) => label.length));
  const namesWidth = Math.min(namesRoom[1], Math.max(namesRoom[0], longest * nameCharacter + 14));
  const columnWidth = (width - namesWidth - 8) / columns.length;
  const fitting = (chartHeight - headHeight - 8) / rows.length;
  const rowHeight = Math.round(Math.min(rowHeights[1], Math.max(rowHeights[0], fitting)));
  const thickness = Math.min(thickestBar, rowHeight - 8);
  const middleOf = (row: number): number => headHeight + (row + 0.5) * rowHeight;
  const names = rows.map(
    ({ label }, row) =>
      `<text x="${namesWidth - 10}" y="${middleOf(row) + 4}" font-size="12" text-anchor="end">${escapeText(label)}</text>`,
  );
  const bars = columns.flatMap(({ metric, axis, bars: ofMetric }, i) => {
    const left = namesWidth + i * columnWidth;
    const head = `<text x="${left}" y="14" font-size="12" font-weight="600">${escapeText(metric.label)}</text><text class="quiet" x="${left}" y="29" font-size="11">${metric.better} is better${axis.scale === 'log' ? ' · log scale' : ''}</text>`;
    return [
      head,
      ...ofMetric.map(({ level, value }, row) => {
        const share = value === undefined ? 0 : Math.min(1, Math.max(0.01, shareOf(axis, value)));
        const length = share * longestShare * columnWidth;
        const figure = value === undefined ? 'none' : formatMetric(value, metric.unit).replace(/ ?tokens\/s$/, '');
        return `<rect class="bar" x="${left}" y="${middleOf(row) - thickness / 2}" width="${tenth(length)}" height="${thickness}" fill="${markOf(level, levels).colour}"/><text x="${tenth(left + length + 5)}" y="${middleOf(row) + 4}" font-size="11">${escapeText(figure)}</text>`;
      }),
    ];
  });
  const height = headHeight + rows.length * rowHeight + 8;
  return svg(height, `${rows.length} rows of levels by memory, throughput and error`, [...names, ...bars]);
}

const svg = (height: number, description: string, parts: readonly string[]): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeText(description)}">${parts.join('')}</svg>`;
