/** Levels side by side: one row a level or kind of it, one column a metric, each column on its own axis. */
import { VisuallyHidden } from '@mantine/core';
import type { KeyboardEvent, MouseEvent } from 'react';
import { Bar, BarChart, Cell, LabelList, XAxis, YAxis } from 'recharts';
import { formatMetric } from '../../src-main/contract/format.ts';
import type { Axis } from '../series/axis.ts';
import { nameSeparator } from '../series/fields.ts';
import type { LevelBar, LevelBars } from '../series/levels.ts';
import { markOf } from '../series/marks.ts';
import { isAdding, type Linked } from './linked.ts';
import { ScaleSwitch } from './scale-switch.tsx';
import { shortened, shortenedParts, widthOf } from './shortened.ts';
import { nextRow, Walked } from './walked.tsx';

interface LevelBarsChartProps {
  readonly columns: readonly LevelBars[];
  /** The same columns of other sessions: a stroke across the bar where each of them stands. */
  readonly beside: readonly {
    readonly colour: string;
    readonly columns: readonly LevelBars[];
  }[];
  readonly width: number;
  readonly height: number;
  readonly levels: readonly string[];
  readonly linked: Linked;
  readonly onScale: (metric: string, scale: Axis['scale']) => void;
}

/** Of the width of the chart, at most. */
const namesShare = 0.34;
const mostNames = 250;
const namesGap = 14;
const headHeight = 36;
const roomForTitle = 200;
const rightMargin = 8;
/** Share of a column that the longest bar takes; the rest is for its figure. */
const longestBars = [0.2, 0.55] as const;
const figureRoom = 60;
const thickestBar = 26;
/** Few levels stand close together at the top instead of far apart. */
const tallestRow = 64;
/** Of what can still be read; the rest is scrolled to. */
const leastRow = 10;
const figureGap = 5;
const bottomMargin = 8;
const columnGap = 8;
/** Stays in sight beside a row that is lit. */
const focusLine = 3;
/** Bold letters against those that are measured. */
const boldness = 1.1;
/** Behind what says which direction is better: words, or an arrow where a column is narrow. */
const scaleOffsets = { words: 91, arrow: 16 } as const;
const roomForWords = 135;

/** Columns are one stack of bars a row: a bar, then the rest of its column unseen. So one drawing holds all three. */
export function LevelBarsChart({ columns, beside, width, height, levels, linked, onScale }: LevelBarsChartProps) {
  const names = (columns[0]?.bars ?? []).map(({ label }) => label);
  // Levels that are still to come have their room: columns should not move when a longer name arrives.
  const longestName = Math.max(0, ...[...levels, ...names].map(widthOf)) + namesGap;
  const namesWidth = Math.min(mostNames, namesShare * width, longestName);
  const columnWidth = (width - namesWidth - rightMargin) / columns.length;
  const longest = Math.min(longestBars[1], Math.max(longestBars[0], 1 - figureRoom / columnWidth));
  const rows = names.map((label, row) => ({ label, ...sharesOf(columns, row, longest) }));
  const scaleOffset = scaleOffsets[columnWidth < roomForWords ? 'arrow' : 'words'];
  const heightOf = (row: number): number => headHeight + rows.length * row + bottomMargin;
  const chartHeight = Math.max(heightOf(leastRow), Math.min(height, heightOf(tallestRow)));
  const rowHeight = (chartHeight - headHeight - bottomMargin) / Math.max(1, rows.length);
  const placeOf = (bar: LevelBar, i: number): number =>
    namesWidth + (i + longest * shareOf(bar, columns[i].axis)) * columnWidth;
  const besideOf = (label: string, i: number): { readonly colour: string; readonly bar: LevelBar }[] =>
    beside.flatMap(({ colour, columns: others }) => {
      const bar = others[i].bars.find((candidate) => candidate.label === label);
      return bar?.value === undefined ? [] : [{ colour, bar }];
    });
  const room = namesWidth - namesGap + 2;
  const isTight = names.some((label) => widthOf(label) > room);
  /** Where names are too long, the level stands at the first of its rows alone. */
  const nameAt = (row: number): string => {
    const bars = columns[0]?.bars ?? [];
    const [bar, above] = [bars[row], bars[row - 1]];
    if (!bar) return ''; // recharts asks once more for rows that have gone
    const isRepeated = isTight && bar.level === above?.level;
    return shortenedParts(isRepeated ? bar.label.slice(bar.level.length + nameSeparator.length) : bar.label, room);
  };
  /** Of a bar and of all that stands across it. */
  const endOf = (row: number, i: number): number => {
    const bar = columns[i].bars[row];
    return Math.max(placeOf(bar, i), ...besideOf(bar.label, i).map((other) => placeOf(other.bar, i) + 2));
  };
  // A row of several points stands for all of them; one that has none, since all failed, is passed over.
  const walked = names.flatMap((label, row) => {
    const ids = columns.reduce<readonly string[]>(
      (most, { bars }) => (bars[row].ids.length > most.length ? bars[row].ids : most),
      [],
    );
    return ids.length === 0 ? [] : [{ label, row, ids }];
  });
  const looked = linked.selected.at(-1);
  const at = walked.findIndex(({ ids }) => looked !== undefined && ids.includes(looked));
  // Not pinned: as in the table, the figures stand in the row itself.
  const choose = ({ ids }: (typeof walked)[number], add: boolean): void => {
    linked.onSelect(ids[0], add, false);
    linked.onBrush(ids.length > 1 ? ids : undefined);
  };
  const onKey = (event: KeyboardEvent): boolean => {
    const next = nextRow(walked, at, event.key);
    if (next) choose(next, isAdding(event));
    return next !== undefined;
  };
  const onClick = (event: MouseEvent<HTMLElement>): void => {
    const { currentTarget: frame } = event;
    const y = event.clientY - frame.getBoundingClientRect().top + frame.scrollTop;
    const clicked = walked.find(({ row }) => row === Math.floor((y - headHeight) / rowHeight));
    if (clicked) choose(clicked, isAdding(event));
  };
  return (
    <Walked
      name={`Levels by ${columns.map(({ metric }) => metric.title).join(', ')}`}
      keys="Up and down go from row to row"
      onKey={onKey}
      onClick={onClick}
      style={{ overflow: 'hidden auto' }}
      told={at !== -1 && <VisuallyHidden>{inWords(columns, walked[at])}</VisuallyHidden>}
    >
      <BarChart
        accessibilityLayer={false}
        layout="vertical"
        data={rows}
        width={width}
        height={chartHeight}
        margin={{ top: headHeight, right: rightMargin, bottom: bottomMargin, left: 0 }}
      >
        {walked
          .filter(({ ids }) => linked.selected.some((id) => ids.includes(id)))
          .map(({ label, row }) => (
            <rect
              key={label}
              ref={reveal}
              data-row={label}
              x={focusLine}
              y={headHeight + row * rowHeight}
              width={width - 2 * focusLine}
              height={rowHeight}
              fill="var(--app-selected)"
            />
          ))}
        <XAxis type="number" hide domain={[0, columns.length]} />
        <YAxis
          type="category"
          dataKey="label"
          width={namesWidth}
          tick={({ x, y, index, payload }) => (
            <text x={x} y={Number(y) + 4} textAnchor="end" fontSize={Math.min(12, rowHeight)} fill="var(--app-text)">
              {nameAt(Number(index))}
              <title>{payload.value}</title>
            </text>
          )}
          tickLine={false}
          axisLine={{ stroke: 'var(--app-line-strong)' }}
          interval={0}
        />
        {columns.map(({ metric }, i) => (
          <g key={metric.id} transform={`translate(${namesWidth + i * columnWidth} 0)`}>
            <text y={14} fontSize={12} fontWeight={600} fill="var(--app-text)">
              {shortened(
                columnWidth < roomForTitle ? metric.label : metric.title,
                (columnWidth - columnGap) / boldness,
              )}
            </text>
            <text y={29} fontSize={11} fill="var(--app-quiet)">
              {columnWidth < roomForWords ? (metric.better === 'higher' ? '↑' : '↓') : `${metric.better} is better`}
              <title>{`${metric.better} is better`}</title>
            </text>
          </g>
        ))}
        {columns.flatMap(({ metric, bars }, i) => [
          <Bar key={metric.id} stackId="row" dataKey={`share${i}`} isAnimationActive={false} maxBarSize={thickestBar}>
            {bars.map(({ label, level }) => (
              <Cell key={label} cursor="pointer" fill={markOf(level, levels).colour} />
            ))}
            <LabelList
              dataKey={`figure${i}`}
              content={({ index = 0, y, height: barHeight, value }) =>
                // Where rows have become fewer, recharts asks once more for those that were.
                index < bars.length && (
                  <text
                    x={endOf(index, i) + figureGap}
                    y={Number(y) + Number(barHeight) / 2 + 4}
                    fontSize={Math.min(11, rowHeight)}
                    fill="var(--app-text)"
                  >
                    {value}
                  </text>
                )
              }
            />
          </Bar>,
          <Bar key={`rest of ${metric.id}`} stackId="row" dataKey={`rest${i}`} isAnimationActive={false} fill="none" />,
        ])}
        {columns.flatMap(({ metric, bars }, i) =>
          bars.flatMap(({ label }, row) =>
            besideOf(label, i).map(({ colour, bar }) => {
              const x = placeOf(bar, i);
              const half = Math.min(thickestBar, 0.8 * rowHeight) / 2 + 3;
              const y = headHeight + (row + 0.5) * rowHeight;
              return (
                <line
                  key={`${colour} ${metric.id} ${label}`}
                  data-beside={label}
                  x1={x}
                  x2={x}
                  y1={y - half}
                  y2={y + half}
                  stroke={colour}
                  strokeWidth={2.2}
                />
              );
            }),
          ),
        )}
      </BarChart>
      {columns.map(({ metric, axis }, i) => (
        <ScaleSwitch
          key={metric.id}
          axis={axis}
          style={{ left: namesWidth + i * columnWidth + scaleOffset, top: 16 }}
          onScale={(scale) => onScale(metric.id, scale)}
        />
      ))}
    </Walked>
  );
}

const reveal = (row: SVGRectElement | null): void => row?.scrollIntoView({ block: 'nearest' });

const figureOf = ({ value }: LevelBar, { metric }: LevelBars): string =>
  value === undefined ? 'none' : formatMetric(value, metric.unit);

/** A row as it is read out. */
function inWords(
  columns: readonly LevelBars[],
  { label, row, ids }: { readonly label: string; readonly row: number; readonly ids: readonly string[] },
): string {
  const figures = columns.map((column) => `${column.metric.title} ${figureOf(column.bars[row], column)}`);
  return [label, ...figures, ...(ids.length > 1 ? [`medians of ${ids.length} points`] : [])].join(', ');
}

function sharesOf(columns: readonly LevelBars[], row: number, longest: number): Record<string, number | string> {
  const entries = columns.flatMap((column, i) => {
    const bar = column.bars[row];
    // A bar of no length would not be drawn, and figures are counted by bars.
    const share = Math.max(1e-6, longest * shareOf(bar, column.axis));
    // The head of the column names the unit already.
    const figure = figureOf(bar, column).replace(/ ?tokens\/s$/, '');
    return [
      [`share${i}`, share],
      [`rest${i}`, 1 - share],
      [`figure${i}`, figure],
    ] as const;
  });
  return Object.fromEntries(entries);
}

function shareOf({ value }: LevelBar, { scale, domain: [from, to] }: LevelBars['axis']): number {
  if (value === undefined) return 0;
  const share = scale === 'log' ? Math.log(value / from) / Math.log(to / from) : (value - from) / (to - from);
  return Math.min(1, Math.max(0.01, share));
}
