/** Time against each baseline: a row a point, a mark a baseline, its range as a line; left is faster, right is slower. */
import { type KeyboardEvent, type PointerEvent, useState } from 'react';
import { CartesianGrid, Scatter, ScatterChart, XAxis, YAxis } from 'recharts';
import type { Verdict } from '../../src-main/contract/comparison.ts';
import { changesInWords } from '../../src-main/contract/comparison-words.ts';
import {
  type ComparedPoint,
  type ComparisonRow,
  type RatioAxis,
  ratioInWords,
  shareOfRatio,
} from '../series/comparison.ts';
import { markOf } from '../series/marks.ts';
import { isAdding, type Linked } from './linked.ts';
import { type Glyph, MarkPath } from './mark.tsx';
import { PlacedTooltip } from './point-overlay.tsx';
import { shortened } from './shortened.ts';
import classes from './tooltip.module.css';
import { nextRow, Walked } from './walked.tsx';

interface ComparisonChartProps {
  readonly rows: readonly ComparisonRow[];
  readonly axis: RatioAxis;
  readonly width: number;
  readonly height: number;
  readonly levels: readonly string[];
  readonly linked: Linked;
}

const head = 22;
const axisHeight = 46;
const leastRow = 20;
const rowPerBaseline = 11;
const tallestRow = 46;
const character = 6.6;
const labelRoom = [110, 250] as const;
const changesRoom = 118;
const radius = 5;

/** Rows that fit below each other; the table has all of them. */
export const rowsThatFit = (height: number, baselines: number): number =>
  Math.max(1, Math.floor((height - head - axisHeight) / rowHeightFor(baselines)));

const rowHeightFor = (baselines: number): number => Math.max(leastRow, baselines * rowPerBaseline + 6);

export function ComparisonChart({ rows, axis, width, height, levels, linked }: ComparisonChartProps) {
  const [near, setNear] = useState<{ readonly row: number; readonly entry: ComparedPoint }>();
  const longest = Math.max(...rows.map(({ label }) => label.length));
  const left = Math.min(labelRoom[1], Math.max(labelRoom[0], longest * character + 34));
  const right = width - changesRoom;
  const rowHeight = Math.min(tallestRow, (height - head - axisHeight) / rows.length);
  const bottom = head + rowHeight * rows.length;
  const toX = (ratio: number): number => left + (right - left) * shareOfRatio(axis, ratio);
  const placed = rows.flatMap(({ entries }, row) =>
    entries.map((entry, i) => ({
      row,
      entry,
      cx: toX(entry.timeRatio ?? 1),
      cy: head + rowHeight * (row + (i + 1) / (entries.length + 1)),
    })),
  );
  const at = rows.findIndex(({ id }) => id === linked.selected.at(-1));
  const told =
    placed.find(({ entry }) => entry.key === near?.entry.key) ??
    (linked.isPinned ? placed.find(({ row }) => row === at) : undefined);

  const point = (event: PointerEvent): void => {
    const frame = event.currentTarget.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    const row = Math.floor((y - head) / rowHeight);
    const nearest = placed
      .filter((mark) => mark.row === row)
      .sort((a, b) => Math.hypot(a.cx - x, 3 * (a.cy - y)) - Math.hypot(b.cx - x, 3 * (b.cy - y)))[0];
    setNear(nearest);
  };
  const onKey = (event: KeyboardEvent): boolean => {
    const next = nextRow(rows, at, event.key);
    if (next) linked.onSelect(next.id, isAdding(event));
    return next !== undefined;
  };

  return (
    <Walked
      name="Time of each point against its baselines"
      keys="Up and down go from point to point"
      isNear={near !== undefined}
      onKey={onKey}
      told={
        told && (
          <PlacedTooltip cx={told.cx} cy={told.cy} width={width} height={height} gap={12}>
            <div className={classes.box}>
              <div className={classes.head}>
                {told.entry.verdict} {told.entry.timeRatio !== undefined && ratioInWords(told.entry.timeRatio)}
              </div>
              <div className={classes.note}>against {told.entry.baseline.name}</div>
              <div>{told.entry.reason}</div>
              <div>memory and error: {changesInWords(told.entry)}</div>
            </div>
          </PlacedTooltip>
        )
      }
      onPointerMove={point}
      onPointerLeave={() => setNear(undefined)}
      onClick={(event) => near && linked.onSelect(near.entry.id, isAdding(event))}
    >
      <ScatterChart
        accessibilityLayer={false}
        width={width}
        height={bottom + axisHeight}
        margin={{ top: head, right: changesRoom, bottom: axisHeight - 30, left: 0 }}
      >
        <rect
          x={left}
          y={head}
          width={toX(1) - left}
          height={bottom - head}
          fill="var(--faster)"
          fillOpacity={0.07}
          stroke="none"
        />
        <rect
          x={toX(1)}
          y={head}
          width={right - toX(1)}
          height={bottom - head}
          fill="var(--slower)"
          fillOpacity={0.07}
          stroke="none"
        />
        <CartesianGrid stroke="var(--chart-grid)" horizontal={false} />
        <XAxis
          type="number"
          dataKey="x"
          height={30}
          scale={axis.scale}
          domain={[...axis.domain]}
          ticks={[...axis.ticks]}
          allowDataOverflow
          interval="equidistantPreserveStart"
          tickFormatter={ratioInWords}
          stroke="var(--chart-axis)"
          tick={{ fill: 'var(--chart-axis)', fontSize: 11 }}
          label={{
            value: 'time of one step against the baseline · lower is better',
            position: 'bottom',
            offset: 0,
            fill: 'var(--chart-axis)',
            fontSize: 12,
          }}
        />
        <YAxis type="number" dataKey="y" hide width={0} domain={[0, 1]} />
        <YAxis
          type="number"
          dataKey="y"
          yAxisId="labels"
          width={left}
          tick={false}
          tickLine={false}
          axisLine={false}
          domain={[0, 1]}
        />
        {/* An axis without any data draws nothing. */}
        <Scatter
          data={[{ x: 1, y: 0 }]}
          isAnimationActive={false}
          tooltipType="none"
          legendType="none"
          shape={() => <g />}
        />
        <text x={left + 4} y={14} fontSize={11} fill="var(--app-quiet)">
          ◂ faster
        </text>
        <text x={right - 4} y={14} fontSize={11} fill="var(--app-quiet)" textAnchor="end">
          slower ▸
        </text>
        <text x={right + 10} y={14} fontSize={11} fill="var(--app-quiet)">
          memory and error
        </text>
        {rows.map((row, i) => (
          <g key={row.id} transform={`translate(0 ${head + rowHeight * i})`}>
            {linked.selected.includes(row.id) && (
              <rect x={0} width={width} height={rowHeight} fill="var(--app-selected)" fillOpacity={0.7} stroke="none" />
            )}
            <g transform={`translate(10 ${rowHeight / 2})`}>
              <MarkPath mark={markOf(row.config.level, levels)} radius={4.6} hollow={row.config.phase === 'prefill'} />
            </g>
            <text x={22} y={rowHeight / 2 + 4} fontSize={12} fill="var(--app-text)">
              {shortened(row.label, left - 30)}
            </text>
            <text x={right + 10} y={rowHeight / 2 + 4} fontSize={11} fill={changeColour(row)}>
              {changeMark(row)}
            </text>
          </g>
        ))}
        <line x1={toX(1)} x2={toX(1)} y1={head} y2={bottom} stroke="var(--chart-axis)" strokeWidth={1.2} />
        {placed.map(({ entry, cx, cy }) => (
          <Entry key={entry.key} entry={entry} cx={cx} cy={cy} toX={toX} left={toX(1)} />
        ))}
      </ScatterChart>
    </Walked>
  );
}

interface EntryProps {
  readonly entry: ComparedPoint;
  readonly cx: number;
  readonly cy: number;
  readonly toX: (ratio: number) => number;
  readonly left: number;
}

function Entry({ entry, cx, cy, toX, left }: EntryProps) {
  const { timeRatioRange, verdict, baseline, reason, timeRatio } = entry;
  if (timeRatio === undefined)
    return (
      <text x={left + 8} y={cy + 4} fontSize={11} fill="var(--app-quiet)">
        {shortened(reason, 260)}
      </text>
    );
  return (
    <g data-mark={entry.key} data-verdict={verdict}>
      {timeRatioRange && (
        <line
          x1={toX(timeRatioRange[0])}
          x2={toX(timeRatioRange[1])}
          y1={cy}
          y2={cy}
          stroke={baseline.colour}
          strokeWidth={1.6}
        />
      )}
      <path
        {...verdictGlyph(verdict, baseline.colour)}
        transform={`translate(${cx} ${cy})`}
        strokeWidth={verdict === 'UNSURE' ? 1.8 : 1}
      />
    </g>
  );
}

/** Filled, but for the verdict that is none. */
export const verdictGlyph = (verdict: Verdict, colour: string): Glyph => ({
  d: verdictPath(verdict),
  fill: verdict === 'UNSURE' ? 'var(--app-panel)' : colour,
  stroke: verdict === 'UNSURE' ? colour : 'var(--app-panel)',
});

/** A verdict has a shape: it points where the time went. */
function verdictPath(verdict: Verdict): string {
  const r = radius;
  switch (verdict) {
    case 'FASTER':
      return `M${-1.4 * r},0L${0.8 * r},${-1.2 * r}V${1.2 * r}Z`;
    case 'SLOWER':
      return `M${1.4 * r},0L${-0.8 * r},${-1.2 * r}V${1.2 * r}Z`;
    case 'SAME':
    case 'UNSURE':
      return `M${-r},0A${r},${r} 0 1 1 ${r},0A${r},${r} 0 1 1 ${-r},0Z`;
  }
}

const changed = ({ entries }: ComparisonRow) => entries.flatMap(({ changes }) => changes);
const changeMark = (row: ComparisonRow): string => {
  const all = changed(row);
  if (all.length === 0) return 'equal';
  return all.some(({ isWorse }) => isWorse) ? 'worse' : 'better';
};
const changeColour = (row: ComparisonRow): string =>
  changed(row).some(({ isWorse }) => isWorse) ? 'var(--mantine-color-error)' : 'var(--app-quiet)';
