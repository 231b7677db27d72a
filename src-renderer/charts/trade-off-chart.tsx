/** Two metrics against each other; colour and shape tell the level, size tells throughput, the line is the frontier. */
import { CartesianGrid, Scatter, ScatterChart, Tooltip, XAxis, YAxis } from 'recharts';
import { type Axis, tickLabel } from '../series/axis.ts';
import { markOf } from '../series/marks.ts';
import { axisLabel } from '../series/metric.ts';
import type { TradeOff, TradeOffMark } from '../series/trade-off.ts';
import { MarkPath } from './mark.tsx';
import { PointTooltip } from './point-tooltip.tsx';

interface TradeOffChartProps {
  readonly data: TradeOff;
  readonly width: number;
  readonly height: number;
  readonly levels: readonly string[];
  readonly selected: readonly string[];
  readonly onSelect: (id: string, add: boolean) => void;
}

const smallestRadius = 5;
const largestRadius = 11;
/** More names than this would cover the marks they name. */
const mostNames = 8;

const axisProps = ({ metric, scale, domain, ticks }: Axis) => ({
  type: 'number' as const,
  scale,
  domain: [...domain],
  ticks: [...ticks],
  interval: 'equidistantPreserveStart' as const,
  allowDataOverflow: true,
  tickFormatter: (value: number) => tickLabel(value, metric.unit),
  stroke: 'var(--chart-axis)',
  tick: { fill: 'var(--chart-axis)', fontSize: 11 },
});

export function TradeOffChart({ data, width, height, levels, selected, onSelect }: TradeOffChartProps) {
  const { x, y, size, groups, frontier } = data;
  const names = new Set(frontier.slice(0, mostNames).map(({ id }) => id));
  const label = { fill: 'var(--chart-axis)', fontSize: 12 };
  return (
    // The keyboard has the table: a picture that also takes the focus would be a second, poorer way.
    <ScatterChart
      accessibilityLayer={false}
      width={width}
      height={height}
      margin={{ top: 12, right: 28, bottom: 24, left: 22 }}
    >
      <CartesianGrid stroke="var(--chart-grid)" />
      <XAxis
        dataKey="x"
        {...axisProps(x)}
        label={{ ...label, value: axisLabel(x.metric), position: 'bottom', offset: 6 }}
      />
      <YAxis
        dataKey="y"
        width={58}
        {...axisProps(y)}
        label={{
          ...label,
          value: axisLabel(y.metric),
          angle: -90,
          position: 'left',
          offset: 4,
          style: { textAnchor: 'middle' },
        }}
      />
      <Tooltip
        isAnimationActive={false}
        cursor={false}
        content={({ active, payload }) => {
          const mark = active ? (payload?.[0]?.payload as TradeOffMark | undefined) : undefined;
          return mark?.point ? (
            <PointTooltip point={mark.point} metrics={[x.metric, y.metric, size]} levels={levels} />
          ) : null;
        }}
      />
      <Scatter
        data={[...frontier]}
        name="frontier"
        isAnimationActive={false}
        tooltipType="none"
        line={{ stroke: 'var(--chart-frontier)', strokeWidth: 1.5, strokeDasharray: '5 4', strokeOpacity: 0.55 }}
        shape={() => <g />}
      />
      {groups.map(({ level, marks }) => (
        <Scatter
          key={level}
          name={level}
          data={[...marks]}
          isAnimationActive={false}
          shape={(props: { cx?: number; cy?: number; payload?: TradeOffMark }) => {
            const { cx = 0, cy = 0, payload } = props;
            return payload ? (
              <PlacedMark
                cx={cx}
                cy={cy}
                width={width}
                mark={payload}
                levels={levels}
                isSelected={selected.includes(payload.id)}
                hasName={names.has(payload.id)}
                onSelect={onSelect}
              />
            ) : (
              <g />
            );
          }}
        />
      ))}
    </ScatterChart>
  );
}

interface PlacedMarkProps {
  readonly cx: number;
  readonly cy: number;
  readonly width: number;
  readonly mark: TradeOffMark;
  readonly levels: readonly string[];
  readonly isSelected: boolean;
  readonly hasName: boolean;
  readonly onSelect: (id: string, add: boolean) => void;
}

function PlacedMark({ cx, cy, width, mark, levels, isSelected, hasName, onSelect }: PlacedMarkProps) {
  const radius = smallestRadius + mark.size * (largestRadius - smallestRadius);
  const isRight = cx > 0.75 * width;
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the table is the twin of every mark for the keyboard
    <g
      transform={`translate(${cx} ${cy})`}
      data-mark={mark.id}
      style={{ cursor: 'pointer' }}
      onClick={(event) => onSelect(mark.id, event.shiftKey || event.ctrlKey || event.metaKey)}
    >
      {isSelected && <circle r={radius + 5} fill="none" stroke="var(--app-accent)" strokeWidth={2.5} />}
      <MarkPath mark={markOf(mark.level, levels)} radius={radius} hollow={mark.phase === 'prefill'} />
      {hasName && (
        <text
          x={(isRight ? -1 : 1) * (radius + 9)}
          y={4}
          textAnchor={isRight ? 'end' : 'start'}
          fontSize={11}
          fill="var(--app-text)"
          stroke="var(--app-panel)"
          strokeWidth={3}
          paintOrder="stroke"
        >
          {mark.level}
        </text>
      )}
    </g>
  );
}
