/** Two metrics against each other; colour and shape tell the level, size tells throughput, lines are the frontiers. */
import { useMemo } from 'react';
import type { Mark } from '../series/plane.ts';
import type { TradeOff } from '../series/trade-off.ts';
import { PlaneChart, type PlaneChartProps } from './plane-chart.tsx';

interface TradeOffChartProps
  extends Omit<PlaneChartProps, 'x' | 'y' | 'marks' | 'beside' | 'lines' | 'named' | 'metrics' | 'name' | 'notes'> {
  readonly data: TradeOff;
  /** Of the sessions beside the current one, in their order. */
  readonly besideColours: readonly string[];
}

export const frontierDash = '5 4';

/** More names than this would cover the marks they name. */
const mostNames = 12;

export function TradeOffChart({ data, besideColours, ...rest }: TradeOffChartProps) {
  const { x, y, size, groups, frontiers, beside } = data;
  const marks = useMemo(() => groups.flatMap((group) => group.marks), [groups]);
  const lines = useMemo(
    () =>
      frontiers.map((places, i) => ({
        key: `frontier ${i}`,
        places,
        colour: 'var(--chart-frontier)',
        width: 1.5,
        dash: frontierDash,
        opacity: 0.55,
      })),
    [frontiers],
  );
  // A level may hold a frontier at many places; one name tells as much.
  const named = useMemo(() => {
    const nameOf = ({ level, name }: Mark): string => name ?? level;
    const all = frontiers.flat();
    return all.filter((mark, i) => all.findIndex((other) => nameOf(other) === nameOf(mark)) === i).slice(0, mostNames);
  }, [frontiers]);
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
