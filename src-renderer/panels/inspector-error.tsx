/** How far off a point is: its output, the answers of the whole model, and what becomes of it as a draft. */
import { Badge, Text } from '@mantine/core';
import { formatBytes, formatMetric, formatNumber } from '../../src-main/contract/format.ts';
import type { Controls, LayerError, Quality, Speculation } from '../../src-main/contract/metrics.ts';
import { gradeMeaning } from '../../src-main/contract/warnings.ts';
import classes from './inspector.module.css';
import { Facts, Section } from './inspector-section.tsx';

/** What a user of the model would notice, against the same model with an exact cache. */
const qualityInWords = ({ logitKl, top1Agreement, perplexity, exactPerplexity, positions }: Quality): string =>
  [
    `At ${formatMetric(top1Agreement, 'share')} of ${formatMetric(positions, 'count')} positions the likeliest next token is the same.`,
    perplexity > 2 * exactPerplexity
      ? 'It is far more surprised by the text: what it would write has changed.'
      : `Each token costs it ${formatNumber(logitKl)} nats on average (KL), where 0 is no difference.`,
  ].join(' ');

const shareInWords = (share: number): string => formatMetric(share, 'share');

export const QualitySection = ({ quality }: { readonly quality: Quality }) => {
  const { retrieved, exactRetrieved, retrievalDepths, retrievedByDepth, layerErrors } = quality;
  return (
    <Section title="Quality of the whole model">
      <Facts
        facts={[
          ['logit KL, p95, nats', `${formatNumber(quality.logitKl)}, ${formatNumber(quality.logitKlP95)}`],
          ['top-1 agreement', shareInWords(quality.top1Agreement)],
          ['acceptance as a draft', shareInWords(quality.acceptance)],
          ['perplexity', `${formatNumber(quality.perplexity)}, exact ${formatNumber(quality.exactPerplexity)}`],
          ...(retrieved === undefined
            ? []
            : [
                [
                  'facts found',
                  `${shareInWords(retrieved)}${exactRetrieved === undefined ? '' : `, exact ${shareInWords(exactRetrieved)}`}`,
                ] as const,
              ]),
        ]}
      />
      <Text size="xs" c="var(--app-quiet)">
        {qualityInWords(quality)}
      </Text>
      {retrievalDepths && retrievedByDepth && (
        <Steps
          title="Facts found, by depth in the text"
          ends={['beginning', 'end']}
          values={retrievedByDepth}
          most={1}
          show={shareInWords}
        />
      )}
      {layerErrors.length > 1 && (
        <Steps
          title="Relative L2 after each layer"
          ends={['first', 'last']}
          values={layerErrors}
          most={Math.max(...layerErrors)}
          show={formatNumber}
        />
      )}
    </Section>
  );
};

/** The level as the draft of the same model, which verifies what it proposes. */
export const SpeculationSection = ({ speculation }: { readonly speculation: Speculation }) => {
  const { speedUp, tokensPerRound, acceptedByPlace, draftCost, verifyCost, draftCacheBytes, differing } = speculation;
  return (
    <Section title="Speculative decoding">
      <Facts
        facts={[
          ['speed-up', formatMetric(speedUp, 'x')],
          ['tokens a round', formatNumber(tokensPerRound)],
          ['a draft token costs', `${formatNumber(draftCost)} plain tokens`],
          ['a verification costs', `${formatNumber(verifyCost)} plain tokens`],
          ['cache of the draft, extra', formatBytes(draftCacheBytes)],
        ]}
      />
      <Text size="xs" c="var(--app-quiet)">
        {speedUp > 1
          ? 'It pays: what a round makes is worth more than its drafts and the verification cost.'
          : 'It does not pay: drafts and verification cost more than the tokens of a round are worth.'}{' '}
        {differing
          ? `${differing} tokens differ from what the model alone says, by rounding.`
          : 'Every token is the one that the model alone says.'}
      </Text>
      <Steps
        title="Proposals kept, by place in the round"
        ends={['first', 'last']}
        values={acceptedByPlace}
        most={1}
        show={shareInWords}
      />
    </Section>
  );
};

interface StepsProps {
  readonly title: string;
  readonly ends: readonly [string, string];
  readonly values: readonly number[];
  readonly most: number;
  readonly show: (value: number) => string;
}

/** A row of small bars, each with its figure as a title; all of them in words for those who do not see it. */
const Steps = ({ title, ends, values, most, show }: StepsProps) => (
  <div className={classes.steps}>
    <Text size="xs" fw={600}>
      {title}
    </Text>
    <div role="img" aria-label={`${title}: ${values.map(show).join(', ')}`}>
      {values.map((value, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a bar is its place
        <span key={i} title={show(value)}>
          <i style={{ height: `${most > 0 ? (100 * value) / most : 0}%` }} />
        </span>
      ))}
    </div>
    <p>
      {[values[0], values.at(-1)].map((value, i) => (
        <span key={ends[i]}>
          {ends[i]} {value === undefined ? '' : show(value)}
        </span>
      ))}
    </p>
  </div>
);

interface ErrorSectionProps {
  readonly error: LayerError;
  readonly controls: Controls | undefined;
  readonly isOfModel: boolean;
}

const gradeColour = {
  exact: 'teal',
  'near-lossless': 'teal',
  mild: 'green',
  moderate: 'yellow',
  heavy: 'orange',
  destroyed: 'red',
} as const;

/** What the figures say, for someone who does not read them every day. */
const errorInWords = ({ relativeL2, cosine, maxAbs, referenceRms, positions }: LayerError): string =>
  [
    `The output is off by ${formatNumber(100 * relativeL2)} % of its length; an all-zero output is off by 100 %.`,
    `It points ${formatNumber((Math.acos(Math.min(1, Math.max(-1, cosine))) * 180) / Math.PI)}° away from the reference (cosine).`,
    `The worst single value is off by ${formatNumber(maxAbs / referenceRms)} times a typical value (max abs).`,
    `Compared at ${positions.length} query ${positions.length === 1 ? 'position' : 'positions'} a sequence.`,
  ].join(' ');

export const ErrorSection = ({ error, controls, isOfModel }: ErrorSectionProps) => (
  <Section
    title={isOfModel ? 'Last hidden state against an exact cache' : 'Error against fp64'}
    aside={
      <Badge variant="dot" color={gradeColour[error.grade]} tt="none">
        {error.grade}
      </Badge>
    }
  >
    <Text size="xs" c="var(--app-quiet)">
      {gradeMeaning[error.grade]}
    </Text>
    <Facts
      facts={[
        ['relative L2', formatNumber(error.relativeL2)],
        ['cosine', error.cosine.toFixed(6)],
        ['RMS of reference RMS', `${formatNumber(error.rms)} of ${formatNumber(error.referenceRms)}`],
        ['max abs', formatNumber(error.maxAbs)],
        ['token median, p95', `${formatNumber(error.tokenMedian)}, ${formatNumber(error.tokenP95)}`],
      ]}
    />
    <Text size="xs" c="var(--app-quiet)">
      {errorInWords(error)}
    </Text>
    {controls && (
      <>
        <Text size="xs" fw={600}>
          Controls: what no method should resemble
        </Text>
        <Facts
          facts={[
            ['all-zero output', formatNumber(controls.zeroOutput)],
            ['uniform attention', formatNumber(controls.uniformAttention)],
            ['an independent layer', formatNumber(controls.independentLayer)],
          ]}
        />
      </>
    )}
  </Section>
);
