/** The samples of one point: how they are spread, and beside that the order in which they were taken. */
import {
  Area,
  Bar,
  BarChart,
  CartesianGrid,
  ComposedChart,
  Line,
  ReferenceArea,
  ReferenceLine,
  XAxis,
  YAxis,
} from 'recharts';
import { formatSeconds } from '../../src-main/contract/format.ts';
import { axisFor } from '../series/axis.ts';
import type { Distribution } from '../series/distribution.ts';
import { metricOf } from '../series/metric.ts';

interface DistributionChartProps {
  readonly data: Distribution;
  readonly colour: string;
  readonly width: number;
  readonly height: number;
}

const axis = { stroke: 'var(--chart-axis)', tick: { fill: 'var(--chart-axis)', fontSize: 11 } };
const label = { fill: 'var(--chart-axis)', fontSize: 12 };
/** On the right, half of the widest tick. */
const inner = { top: 24, right: 26, bottom: 24, left: 16 };

export function DistributionChart({ data, colour, width, height }: DistributionChartProps) {
  const half = Math.floor(width / 2);
  return (
    <div style={{ display: 'flex' }}>
      <Histogram data={data} colour={colour} width={half} height={height} />
      <InOrder data={data} colour={colour} width={width - half} height={height} />
    </div>
  );
}

const Histogram = ({ data, colour, width, height }: DistributionChartProps) => (
  <BarChart
    accessibilityLayer={false}
    width={width}
    height={height}
    margin={inner}
    barCategoryGap={0}
    data={data.bins.map(({ from, to, count }) => ({ middle: (from + to) / 2, count }))}
  >
    <CartesianGrid stroke="var(--chart-grid)" vertical={false} />
    <XAxis
      {...axis}
      type="number"
      dataKey="middle"
      domain={[...data.seconds.domain]}
      ticks={[...data.seconds.ticks]}
      allowDataOverflow
      interval="equidistantPreserveStart"
      tickFormatter={formatSeconds}
      label={{ ...label, value: 'time of one step', position: 'bottom', offset: 6 }}
    />
    <YAxis
      {...axis}
      width={44}
      allowDecimals={false}
      label={{ ...label, value: 'samples', angle: -90, position: 'left', offset: 0, style: { textAnchor: 'middle' } }}
    />
    <ReferenceArea x1={data.quartiles[0]} x2={data.quartiles[1]} fill="var(--app-accent)" fillOpacity={0.13} />
    <Bar dataKey="count" fill={colour} isAnimationActive={false} barSize={barWidth(data, width)} />
    {[
      ['p05', data.p05, '3 3'],
      ['median', data.median, undefined],
      ['p95', data.p95, '3 3'],
    ].map(([name, value, dash]) => (
      <ReferenceLine
        key={name as string}
        x={value as number}
        stroke="var(--app-text)"
        strokeWidth={name === 'median' ? 2 : 1}
        {...(dash ? { strokeDasharray: dash as string } : {})}
        ifOverflow="hidden"
      />
    ))}
  </BarChart>
);

const barWidth = ({ bins }: Distribution, width: number): number => Math.max(1, (width - 92) / bins.length - 1);

const InOrder = ({ data, colour, width, height }: DistributionChartProps) => {
  const isEach = data.stretchLength === 1;
  return (
    <ComposedChart
      accessibilityLayer={false}
      width={width}
      height={height}
      margin={inner}
      data={data.stretches.map(({ at, least, median, most }) => ({ at, median, range: [least, most] }))}
    >
      <CartesianGrid stroke="var(--chart-grid)" />
      <XAxis
        {...axis}
        type="number"
        dataKey="at"
        domain={[0, data.count]}
        ticks={axisFor(metricOf('samples'), [0, data.count], 'linear').ticks.filter((tick) => tick <= data.count)}
        label={{
          ...label,
          value: isEach ? 'order taken' : `order taken, ${data.stretchLength} samples a stretch`,
          position: 'bottom',
          offset: 6,
        }}
      />
      <YAxis
        {...axis}
        width={62}
        domain={[...data.seconds.domain]}
        ticks={[...data.seconds.ticks]}
        allowDataOverflow
        tickFormatter={formatSeconds}
      />
      <ReferenceArea y1={data.quartiles[0]} y2={data.quartiles[1]} fill="var(--app-accent)" fillOpacity={0.13} />
      <ReferenceLine y={data.median} stroke="var(--app-text)" strokeWidth={2} />
      {!isEach && <Area dataKey="range" stroke="none" fill={colour} fillOpacity={0.25} isAnimationActive={false} />}
      <Line
        dataKey="median"
        stroke={colour}
        strokeWidth={isEach ? 0 : 1.5}
        dot={isEach ? { r: 2.2, fill: colour, stroke: 'none' } : false}
        activeDot={false}
        isAnimationActive={false}
      />
    </ComposedChart>
  );
};
