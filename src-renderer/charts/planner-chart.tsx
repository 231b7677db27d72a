/** A plan along the context: what one sequence takes, and how many fit. Rings are what was allocated for real. */
import { CartesianGrid, Line, LineChart, ReferenceDot, ReferenceLine, Tooltip, XAxis, YAxis } from 'recharts';
import { formatBytes, formatMetric } from '../../src-main/contract/format.ts';
import { type Axis, axisTick } from '../series/axis.ts';
import { type Planner, plannerMark } from '../series/planner.ts';
import { MarkPath, Swatch } from './mark.tsx';
import classes from './tooltip.module.css';

interface PlannerChartProps {
  readonly data: Planner;
  /** Tokens of the context that is asked about. */
  readonly asked: number;
  /** Stands out. */
  readonly level: string | undefined;
  readonly levels: readonly string[];
  readonly width: number;
  readonly height: number;
}

type Side = 'bytes' | 'fits';

const style = { stroke: 'var(--chart-axis)', tick: { fill: 'var(--chart-axis)', fontSize: 11 } };
const label = { fill: 'var(--chart-axis)', fontSize: 12 };
const titles = { bytes: 'cache of one sequence', fits: 'sequences that fit in the device' } as const;

export function PlannerChart({ width, height, ...rest }: PlannerChartProps) {
  const half = Math.floor(width / 2);
  return (
    <div style={{ display: 'flex' }}>
      <Plot side="bytes" width={half} height={height} {...rest} />
      <Plot side="fits" width={width - half} height={height} {...rest} />
    </div>
  );
}

function Plot({ side, data, asked, level, levels, width, height }: PlannerChartProps & { readonly side: Side }) {
  const axis = data[side];
  return (
    <LineChart
      accessibilityLayer={false}
      width={width}
      height={height}
      margin={{ top: 32, right: 14, bottom: 24, left: 6 }}
      data={[...data.places]}
    >
      <CartesianGrid stroke="var(--chart-grid)" />
      <text x={14} y={22} fontSize={12} fontWeight={600} fill="var(--app-text)">
        {titles[side]}
      </text>
      <XAxis
        {...style}
        {...endsOf(data.context)}
        dataKey="context"
        interval="equidistantPreserveStart"
        label={{ ...label, value: 'context, tokens', position: 'bottom', offset: 6 }}
      />
      <YAxis {...style} {...endsOf(axis)} width={side === 'bytes' ? 62 : 66} interval="preserveStartEnd" />
      <ReferenceLine x={asked} stroke="var(--chart-axis)" strokeDasharray="3 3" />
      {side === 'bytes' && (
        <ReferenceLine
          y={data.freeBytes}
          stroke="var(--chart-axis)"
          strokeWidth={1.5}
          label={{ ...label, fontSize: 11, value: 'device less weights', position: 'insideTopLeft' }}
        />
      )}
      {data.levels.map((name) => (
        <Line
          key={name}
          name={name}
          dataKey={(place: Planner['places'][number]) => place[side][name]}
          stroke={plannerMark(name, levels).colour}
          strokeWidth={name === level ? 3.5 : 1.75}
          strokeOpacity={level === undefined || name === level ? 1 : 0.25}
          {...(name === data.levels[0] && { strokeDasharray: '6 4' })}
          dot={({ cx, cy, key }: { cx?: number; cy?: number; key?: string | number | bigint | null }) => (
            <g
              key={key}
              transform={`translate(${cx} ${cy})`}
              opacity={level === undefined || name === level ? 1 : 0.25}
            >
              <MarkPath mark={plannerMark(name, levels)} radius={3} />
            </g>
          )}
          activeDot={false}
          isAnimationActive={false}
        />
      ))}
      {side === 'bytes' &&
        data.proven.map(({ level: name, context, bytes }) => (
          <ReferenceDot
            key={name}
            x={context}
            y={bytes}
            r={6.5}
            fill="none"
            stroke={plannerMark(name, levels).colour}
            strokeWidth={2}
          />
        ))}
      <Tooltip
        isAnimationActive={false}
        cursor={{ stroke: 'var(--chart-axis)' }}
        wrapperStyle={{ zIndex: 2 }}
        content={({ active, payload }) =>
          active && payload?.[0] ? (
            <AtContext place={payload[0].payload} side={side} order={data.levels} levels={levels} axis={axis} />
          ) : null
        }
      />
    </LineChart>
  );
}

const endsOf = (axis: Axis) => ({
  type: 'number' as const,
  scale: axis.scale,
  domain: [...axis.domain],
  ticks: [...axis.ticks],
  allowDataOverflow: true,
  tickFormatter: (value: number) => axisTick(axis, value),
});

interface AtContextProps {
  readonly place: Planner['places'][number];
  readonly side: Side;
  readonly order: readonly string[];
  readonly levels: readonly string[];
  readonly axis: Axis;
}

/** All levels at one context, the largest first. */
function AtContext({ place, side, order, levels, axis }: AtContextProps) {
  const value = (level: string): number => place[side][level] ?? 0;
  const shown = (amount: number): string =>
    side === 'bytes' ? formatBytes(amount) : amount === axis.zero ? '0' : formatMetric(amount, 'count');
  return (
    <div className={classes.box} data-dense>
      <div className={classes.head}>{formatMetric(place.context, 'count')} tokens</div>
      <dl className={classes.rows}>
        {[...order]
          .sort((a, b) => value(b) - value(a))
          .map((level) => [
            <dt key={level} style={{ display: 'flex', alignItems: 'center', gap: 5 }}>
              <Swatch mark={plannerMark(level, levels)} />
              {level}
            </dt>,
            <dd key={`${level} value`}>{shown(value(level))}</dd>,
          ])}
      </dl>
    </div>
  );
}
