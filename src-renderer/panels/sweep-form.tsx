/** The sweep as it is being written: layer, levels, phases, sizes, further axes; errors stand at their fields. */
import { ActionIcon, Checkbox, Group, Select, Text, TextInput, Title, Tooltip } from '@mantine/core';
import { IconArrowBackUp, IconArrowForwardUp, IconX } from '@tabler/icons-react';
import { type ReactNode, useId } from 'react';
import { useStore } from 'zustand';
import { axisNames } from '../../src-main/contract/axes.ts';
import { type ModelPreset, modelPresets } from '../../src-main/contract/presets.ts';
import { type Phase, phases } from '../../src-main/contract/sweep.ts';
import { Swatch } from '../charts/mark.tsx';
import { markOf } from '../series/marks.ts';
import { standardAxes } from '../store/draft.ts';
import { PlaceChoice } from './place-choice.tsx';
import classes from './sweep-form.module.css';
import { StartFrom, SweepMenu } from './sweep-menu.tsx';
import { formId, SweepPreview } from './sweep-preview.tsx';
import { useApp, useDraft, useLevels } from './use-app.ts';

const notExtra = ['level', 'phase', 'verifyTokens', ...standardAxes];
const extraAxes = axisNames.filter((axis) => !notExtra.includes(axis));

export function SweepForm() {
  return (
    <form id={formId} className={classes.form} aria-label="Sweep" onSubmit={(event) => event.preventDefault()}>
      <div className={classes.fields}>
        <Head />
        <Layer />
        <Levels />
        <Phases />
        <Sizes />
        <FurtherAxes />
        <Measuring />
      </div>
      <PlaceChoice />
      <SweepPreview />
    </form>
  );
}

function useError(field: string): string | undefined {
  return useStore(useApp().preview, ({ errors }) => errors[field]);
}

function Head() {
  const { draft, past, future } = useStore(useApp().draft);
  const { undo, redo, edit } = useApp().draft;
  return (
    <>
      <Group justify="space-between" wrap="nowrap">
        <Title order={2} size="sm">
          Sweep
        </Title>
        <Group gap={2}>
          <Tooltip label="Undo (Ctrl+Z)">
            <ActionIcon variant="subtle" color="gray" aria-label="Undo" disabled={past.length === 0} onClick={undo}>
              <IconArrowBackUp size={16} />
            </ActionIcon>
          </Tooltip>
          <Tooltip label="Redo (Ctrl+Shift+Z)">
            <ActionIcon variant="subtle" color="gray" aria-label="Redo" disabled={future.length === 0} onClick={redo}>
              <IconArrowForwardUp size={16} />
            </ActionIcon>
          </Tooltip>
          <SweepMenu />
        </Group>
      </Group>
      <TextInput
        size="xs"
        label="Name"
        value={draft.name}
        error={useError('name')}
        onChange={(event) => edit({ name: event.currentTarget.value }, 'name')}
      />
      <StartFrom />
    </>
  );
}

interface AxisFieldProps {
  readonly axis: string;
  readonly label: string;
  readonly placeholder?: string;
  readonly onRemove?: () => void;
}

function AxisField({ axis, label, placeholder, onRemove }: AxisFieldProps) {
  const { axes } = useDraft();
  const { edit } = useApp().draft;
  const remove = onRemove && (
    <ActionIcon variant="subtle" color="gray" size="sm" aria-label={`Remove ${label}`} onClick={onRemove}>
      <IconX size={14} />
    </ActionIcon>
  );
  return (
    <TextInput
      size="xs"
      label={label}
      placeholder={placeholder ?? ''}
      value={axes[axis] ?? ''}
      error={useError(axis)}
      rightSection={remove}
      spellCheck={false}
      autoComplete="off"
      onChange={(event) => edit({ axes: { ...axes, [axis]: event.currentTarget.value } }, axis)}
    />
  );
}

const Section = ({ title, hint, children }: { title: string; hint?: string; children: ReactNode }) => {
  const id = useId();
  return (
    <section className={classes.section} aria-labelledby={id}>
      <Group justify="space-between" wrap="nowrap" gap={8}>
        <Title order={3} size="xs" id={id}>
          {title}
        </Title>
        {hint && (
          <Text size="xs" c="var(--app-quiet)" truncate>
            {hint}
          </Text>
        )}
      </Group>
      {children}
    </section>
  );
};

const layerAxes = ['hiddenDim', 'heads', 'headDim', 'referenceKvHeads'];
/** Come with FastMQA, weights and all: what a level does to their words is measured. */
const trained = ['byte-mha', 'byte-mqa'];

const shapeOf = ({ hiddenDim, heads, headDim, kvHeads, ropeTheta }: ModelPreset): Record<string, string> => ({
  hiddenDim: String(hiddenDim),
  heads: String(heads),
  headDim: String(headDim),
  referenceKvHeads: String(kvHeads),
  ropeTheta: String(ropeTheta),
});

/** A whole trained model, or one layer in the shape of a known model; the fields stay the user's. */
function ModelChoice() {
  const { axes, extraAxes } = useDraft();
  const { edit } = useApp().draft;
  const shape = modelPresets.find((preset) =>
    Object.entries(shapeOf(preset)).every(([axis, value]) => axes[axis] === value),
  );
  const choose = (name: string | null): void => {
    const preset = modelPresets.find((candidate) => candidate.name === name);
    const { model: _, ropeTheta: __, ...others } = axes;
    const chosen = preset
      ? shapeOf(preset)
      : { ...Object.fromEntries(layerAxes.map((axis) => [axis, ''])), ...(name === null ? {} : { model: name }) };
    const added = preset ? 'ropeTheta' : 'model';
    const kept = extraAxes.filter((axis) => axis !== 'model' && axis !== 'ropeTheta');
    edit({ axes: { ...others, ...chosen }, extraAxes: name === null ? kept : [...kept, added] });
  };
  return (
    <Select
      size="xs"
      label="Model"
      placeholder={axes.model || 'own shape'}
      searchable
      clearable
      value={trained.includes(axes.model ?? '') ? (axes.model as string) : (shape?.name ?? null)}
      data={[
        { group: 'Trained, the whole model', items: trained },
        { group: 'One layer in the shape of', items: modelPresets.map(({ name }) => name) },
      ]}
      onChange={choose}
    />
  );
}

/** A trained model brings its own shape; fields of a layer then only say where it differs. */
function Layer() {
  const isModel = useDraft().axes.model !== undefined;
  const usual = (placeholder: string): string => (isModel ? 'of the model' : placeholder);
  return (
    <Section title="Model or layer">
      <ModelChoice />
      <div className={classes.pair}>
        <AxisField axis="hiddenDim" label="Hidden size d" placeholder={usual('')} />
        <AxisField axis="heads" label="Heads" placeholder={usual('')} />
        <AxisField axis="headDim" label="Head size" placeholder={usual('d / heads')} />
        <AxisField axis="referenceKvHeads" label="Model KV heads" placeholder={usual('as heads')} />
      </div>
    </Section>
  );
}

function Levels() {
  const chosen = useDraft().levels;
  const { edit } = useApp().draft;
  const levels = useLevels();
  const names = levels.map(({ name }) => name);
  const error = useError('level');
  const toggle = (name: string) => {
    const next = chosen.includes(name) ? chosen.filter((other) => other !== name) : [...chosen, name];
    edit({ levels: names.filter((other) => next.includes(other)) });
  };
  return (
    <Section title="Levels" hint={`${chosen.length} of ${names.length || '…'}`}>
      <div className={classes.levels} data-wrong={error && ''}>
        {levels.map(({ name, summary, techniques }) => (
          <Tooltip
            key={name}
            position="right"
            multiline
            w={280}
            openDelay={400}
            label={`${summary} (${techniques.join('; ')})`}
          >
            <div className={classes.level}>
              <Checkbox
                size="xs"
                checked={chosen.includes(name)}
                onChange={() => toggle(name)}
                label={
                  <span className={classes.levelName}>
                    <Swatch mark={markOf(name, names)} />
                    {name}
                  </span>
                }
              />
            </div>
          </Tooltip>
        ))}
      </div>
      {error && (
        <Text size="xs" c="var(--mantine-color-error)">
          {error}
        </Text>
      )}
    </Section>
  );
}

const phaseMeaning: Readonly<Record<Phase, string>> = {
  prefill: 'the whole prompt at once',
  decode: 'one new token against the cache',
  verify: 'a few drafted tokens at once',
  speculate: 'a whole model, the level as its draft',
  capacity: 'how many sequences fit: caches allocated until memory is refused',
};

function Phases() {
  const chosen = useDraft().phases;
  const { edit } = useApp().draft;
  const error = useError('phase');
  return (
    <Section title="Phases">
      <Checkbox.Group
        data-wrong={error && ''}
        value={[...chosen]}
        onChange={(values) => edit({ phases: phases.filter((phase) => values.includes(phase)) })}
        error={error}
      >
        <Group gap={14}>
          {phases.map((phase) => (
            <Tooltip key={phase} label={phaseMeaning[phase]} openDelay={400}>
              <div>
                <Checkbox size="xs" value={phase} label={phase} />
              </div>
            </Tooltip>
          ))}
        </Group>
      </Checkbox.Group>
    </Section>
  );
}

const Sizes = () => (
  <Section title="Sizes" hint="several: 512,1024 or 512-4096*2">
    <div className={classes.pair}>
      <AxisField axis="seqLen" label="Context tokens" />
      <AxisField axis="batch" label="Batch" placeholder="1" />
    </div>
  </Section>
);

function FurtherAxes() {
  const draft = useDraft();
  const { edit } = useApp().draft;
  const remove = (axis: string) => {
    const { [axis]: _, ...axes } = draft.axes;
    edit({ axes, extraAxes: draft.extraAxes.filter((other) => other !== axis) });
  };
  return (
    <Section title="Further axes">
      {draft.extraAxes.map((axis) => (
        <AxisField key={axis} axis={axis} label={axis} placeholder="default" onRemove={() => remove(axis)} />
      ))}
      <Kept />
      <Select
        size="xs"
        aria-label="Add an axis"
        placeholder="Add an axis: window, cacheDtype, latentRank …"
        searchable
        value={null}
        data={extraAxes.filter((axis) => !draft.extraAxes.includes(axis))}
        onChange={(axis) => axis && edit({ extraAxes: [...draft.extraAxes, axis] })}
      />
    </Section>
  );
}

/** What came with an opened sweep and has no field of its own. */
function Kept() {
  const { kept } = useDraft();
  const { edit } = useApp().draft;
  const without = (name: keyof typeof kept): void => {
    const { [name]: _, ...rest } = kept;
    edit({ kept: rest });
  };
  const facts = [
    ['zip', kept.zip?.map((group) => `${group.join(', ')} advance together`).join('; ')],
    ['also', kept.also && `and ${kept.also.length} further ${kept.also.length === 1 ? 'grid' : 'grids'} of points`],
    [
      'measuring',
      kept.measuring &&
        Object.entries(kept.measuring)
          .map((entry) => entry.join(' '))
          .join(', '),
    ],
  ] as const;
  return facts.map(
    ([name, text]) =>
      text && (
        <Group key={name} gap={4} wrap="nowrap" justify="space-between">
          <Text size="xs">{text}</Text>
          <ActionIcon
            variant="subtle"
            color="gray"
            size="sm"
            aria-label={`Remove: ${text}`}
            onClick={() => without(name)}
          >
            <IconX size={14} />
          </ActionIcon>
        </Group>
      ),
  );
}

function Measuring() {
  const draft = useDraft();
  const { edit } = useApp().draft;
  const field = (name: 'minSeconds' | 'maxSeconds', label: string, error: string | undefined) => (
    <TextInput
      size="xs"
      label={label}
      value={draft[name]}
      placeholder="default"
      error={error}
      inputMode="decimal"
      onChange={(event) => edit({ [name]: event.currentTarget.value }, name)}
    />
  );
  return (
    <Section title="Sampling of each point">
      <div className={classes.pair}>
        {field('minSeconds', 'At least, seconds', useError('minSeconds'))}
        {field('maxSeconds', 'At most, seconds', useError('maxSeconds'))}
      </div>
    </Section>
  );
}
