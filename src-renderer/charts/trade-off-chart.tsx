/** Two metrics against each other; colour and shape tell the level, size tells throughput, the line is the frontier. */
import { useMemo } from 'react';
import type { TradeOff } from '../series/trade-off.ts';
import { PlaneChart, type PlaneChartProps } from './plane-chart.tsx';

interface TradeOffChartProps
  extends Omit<PlaneChartProps, 'x' | 'y' | 'marks' | 'beside' | 'lines' | 'named' | 'metrics' | 'name' | 'notes'> {
  readonly data: TradeOff;
  /** Of the sessions beside the current one, in their order. */
  readonly besideColours: readonly string[];
}

/** More names than this would cover the marks they name. */
const mostNames = 8;

export function TradeOffChart({ data, besideColours, ...rest }: TradeOffChartProps) {
  const { x, y, size, groups, frontier, beside } = data;
  const marks = useMemo(() => groups.flatMap((group) => group.marks), [groups]);
  const lines = useMemo(
    () => [
      { key: 'frontier', places: frontier, colour: 'var(--chart-frontier)', width: 1.5, dash: '5 4', opacity: 0.55 },
    ],
    [frontier],
  );
  // A level may hold the frontier at many places; one name tells as much.
  const named = useMemo(
    () =>
      frontier.filter(({ level }, i) => frontier.findIndex((mark) => mark.level === level) === i).slice(0, mostNames),
    [frontier],
  );
  const outlined = useMemo(
    () => beside.map((others, i) => ({ marks: others, colour: besideColours[i] })),
    [beside, besideColours],
  );
  return (
    <PlaneChart
      name={`${x.metric.title} against ${y.metric.title}`}
      x={x}
      y={y}
      marks={marks}
      beside={outlined}
      lines={lines}
      named={named}
      metrics={[x.metric, y.metric, size]}
      {...rest}
    />
  );
}
