/** Levels side by side: one row a level or kind of it, one column a metric, each column on its own axis. */
import { Bar, BarChart, Cell, LabelList, XAxis, YAxis } from 'recharts';
import { formatMetric } from '../../src-main/contract/format.ts';
import type { Axis } from '../series/axis.ts';
import type { LevelBar, LevelBars } from '../series/levels.ts';
import { markOf } from '../series/marks.ts';
import { isAdding, type Linked } from './linked.ts';
import { ScaleSwitch } from './scale-switch.tsx';
import { shortened } from './shortened.ts';

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

/** Of the width of the chart, whatever the names are: columns must not move when a longer one arrives. */
const namesShare = 0.34;
const namesRoom = [132, 250] as const;
const headHeight = 36;
const roomForTitle = 200;
const rightMargin = 8;
/** Share of a column that the longest bar takes; the rest is for its figure. */
const longestShare = 0.55;
const thickestBar = 26;
/** Few levels stand close together at the top instead of far apart. */
const tallestRow = 64;
const figureGap = 5;
const bottomMargin = 8;
/** Behind the words that say which direction is better. */
const scaleOffset = 91;

/** Columns are one stack of bars a row: a bar, then the rest of its column unseen. So one drawing holds all three. */
export function LevelBarsChart({ columns, beside, width, height, levels, linked, onScale }: LevelBarsChartProps) {
  const rows = (columns[0]?.bars ?? []).map(({ label }, row) => ({ label, ...sharesOf(columns, row) }));
  const namesWidth = Math.min(namesRoom[1], Math.max(namesRoom[0], namesShare * width));
  const chosen = new Set(linked.selected);
  const columnWidth = (width - namesWidth - rightMargin) / columns.length;
  const chartHeight = Math.min(height, headHeight + rows.length * tallestRow + bottomMargin);
  const rowHeight = (chartHeight - headHeight - bottomMargin) / Math.max(1, rows.length);
  const placeOf = (bar: LevelBar, i: number): number =>
    namesWidth + (i + longestShare * shareOf(bar, columns[i].axis)) * columnWidth;
  const besideOf = (label: string, i: number): { readonly colour: string; readonly bar: LevelBar }[] =>
    beside.flatMap(({ colour, columns: others }) => {
      const bar = others[i].bars.find((candidate) => candidate.label === label);
      return bar?.value === undefined ? [] : [{ colour, bar }];
    });
  /** Of a bar and of all that stands across it. */
  const endOf = (row: number, i: number): number => {
    const bar = columns[i].bars[row];
    return Math.max(placeOf(bar, i), ...besideOf(bar.label, i).map((other) => placeOf(other.bar, i) + 2));
  };
  return (
    <>
      <BarChart
        accessibilityLayer={false}
        layout="vertical"
        data={rows}
        width={width}
        height={chartHeight}
        margin={{ top: headHeight, right: rightMargin, bottom: bottomMargin, left: 0 }}
      >
        <XAxis type="number" hide domain={[0, columns.length]} />
        <YAxis
          type="category"
          dataKey="label"
          width={namesWidth}
          tick={({ x, y, payload }) => (
            <text x={x} y={Number(y) + 4} textAnchor="end" fontSize={Math.min(12, rowHeight)} fill="var(--app-text)">
              {shortened(String(payload.value), namesWidth - 12)}
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
              {columnWidth < roomForTitle ? metric.label : metric.title}
            </text>
            <text y={29} fontSize={11} fill="var(--app-quiet)">
              {`${metric.better} is better`}
            </text>
          </g>
        ))}
        {columns.flatMap(({ metric, bars }, i) => [
          <Bar
            key={metric.id}
            stackId="row"
            dataKey={`share${i}`}
            isAnimationActive={false}
            maxBarSize={thickestBar}
            onClick={(_, row, event) => {
              const { ids } = bars[row];
              if (ids.length === 0) return;
              linked.onSelect(ids[0], isAdding(event));
              // A bar of several points stands for all of them.
              linked.onBrush(ids.length > 1 ? ids : undefined);
            }}
          >
            {bars.map(({ label, level, ids }) => (
              <Cell
                key={label}
                cursor="pointer"
                fill={markOf(level, levels).colour}
                stroke={ids.some((id) => chosen.has(id)) ? 'var(--app-accent)' : 'none'}
                strokeWidth={2.5}
              />
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
    </>
  );
}

function sharesOf(columns: readonly LevelBars[], row: number): Record<string, number | string> {
  const entries = columns.flatMap(({ metric, axis, bars }, i) => {
    // A bar of no length would not be drawn, and figures are counted by bars.
    const share = Math.max(1e-6, longestShare * shareOf(bars[row], axis));
    const { value } = bars[row];
    // The head of the column names the unit already.
    const figure = value === undefined ? 'none' : formatMetric(value, metric.unit).replace(/ ?tokens\/s$/, '');
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
