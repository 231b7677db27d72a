/** What a point takes: bytes by formula and as allocated, and how many sequences memory holds. */
import { Text } from '@mantine/core';
import { cacheFormula } from '../../src-main/contract/cache-formula.ts';
import { formatBytes, formatMetric } from '../../src-main/contract/format.ts';
import type { Capacity, Memory, Point } from '../../src-main/contract/metrics.ts';
import { Facts, Section } from './inspector-section.tsx';

const partsOf = ({ kvParts }: Memory): string =>
  [
    ['payload', kvParts.payloadBytes] as const,
    ['scales', kvParts.scaleBytes] as const,
    ['sinks', kvParts.sinkBytes] as const,
    ['residual', kvParts.residualBytes] as const,
  ]
    .filter(([, bytes]) => bytes > 0)
    .map(([name, bytes]) => `${name} ${formatBytes(bytes)}`)
    .join(' + ');

interface MemorySectionProps {
  readonly memory: Memory;
  readonly config: Point['config'];
}

export function MemorySection({ memory, config }: MemorySectionProps) {
  const figures = [
    ['cache by formula', memory.kvLogicalBytes],
    ['cache allocated', memory.kvAllocatedBytes],
    ['peak memory', memory.peakBytes],
  ] as const;
  const formula = cacheFormula(config);
  const isFormula = formula !== undefined && Math.round(formula.bytes) === memory.kvLogicalBytes;
  const lines = isFormula ? formula.lines : [partsOf(memory)];
  return (
    <Section title="Memory">
      <Facts facts={figures.map(([name, bytes]) => [name, formatBytes(bytes)])} />
      <Text size="xs" c="var(--app-quiet)" component="div">
        {isFormula ? 'Formula: ' : 'By parts, as the cache was filled: '}
        {lines.map((line) => (
          <div key={line}>{line}</div>
        ))}
      </Text>
      <Text size="xs" c="var(--app-quiet)">
        {memory.differenceExplained}
      </Text>
      <Facts
        facts={[
          ['vs f32 MHA', `${formatMetric(memory.multiplierVsF32Mha, 'x')}, ${saved(memory.reductionVsF32MhaPercent)}`],
          [
            'vs own 16 bit',
            `${formatMetric(memory.multiplierVsOwn16Bit, 'x')}, ${saved(memory.reductionVsOwn16BitPercent)}`,
          ],
          ['per token', formatBytes(memory.bytesPerToken)],
          ['extra weights', formatBytes(memory.extraWeightBytes)],
        ]}
      />
    </Section>
  );
}

const saved = (percent: number): string =>
  percent >= 0 ? `${formatMetric(percent, '%')} saved` : `${formatMetric(-percent, '%')} more`;

/** Planned beforehand, then allocated and filled for real. */
export const CapacitySection = ({ capacity, tokens }: { readonly capacity: Capacity; readonly tokens: number }) => {
  const { plannedSequences, reachedSequences, allocatedBytes, plannedBytes, limitBytes, reservedBytes } = capacity;
  const { endedAtSequences } = capacity;
  return (
    <Section title="Sequences that fit">
      <Facts
        facts={[
          ['planned', String(plannedSequences)],
          ['allocated and filled', `${endedAtSequences === undefined ? '' : 'at least '}${reachedSequences}`],
          ['cache of one', formatBytes(allocatedBytes / Math.max(1, reachedSequences))],
          ['allocated, planned', `${formatBytes(allocatedBytes)}, ${formatBytes(plannedBytes)}`],
          ['room for caches', formatBytes(limitBytes)],
          ...(reservedBytes > 0 ? [['taken for the weights', formatBytes(reservedBytes)] as const] : []),
        ]}
      />
      <Text size="xs" c="var(--app-quiet)">
        {endedAtSequences === undefined
          ? `Whole sequences of ${tokens} tokens in every layer, one after the other, until memory was refused.`
          : `It ended after ${endedAtSequences} sequences of ${tokens} tokens: more may fit.`}
      </Text>
    </Section>
  );
};
