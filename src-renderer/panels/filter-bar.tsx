/** Which points all charts show: the phase, a free filter, and what else is left out, each with a way back. */
import { SegmentedControl, TextInput } from '@mantine/core';
import { IconFilter, IconX } from '@tabler/icons-react';
import type { Phase } from '../../src-main/contract/sweep.ts';
import { parseFilter } from '../series/filter.ts';
import classes from './filter-bar.module.css';
import { useApp, useView } from './use-app.ts';
import { useDeviceNames } from './use-devices.ts';
import { usePhase, usePlannedPhases } from './use-points.ts';

const filterId = 'filter-points';

export const focusFilter = (): void => document.getElementById(filterId)?.focus();

export function FilterBar() {
  return (
    <div className={classes.bar}>
      <PhaseChoice />
      <ColourChoice />
      <FreeFilter />
      <Chips />
    </div>
  );
}

/** Only of a sweep with several. */
function PhaseChoice() {
  const app = useApp();
  const planned = usePlannedPhases();
  const phase = usePhase();
  if (planned.length < 2) return null;
  return (
    <SegmentedControl
      size="xs"
      className={classes.choice}
      aria-label="Phase shown in the charts"
      value={phase ?? 'all'}
      onChange={(value) => app.view.setState({ phase: value === 'all' ? undefined : (value as Phase) })}
      data={[...planned, 'all']}
    />
  );
}

/** Only where points come from several devices. */
function ColourChoice() {
  const { view } = useApp();
  const colourBy = useView((state) => state.colourBy);
  if (useDeviceNames().length < 2) return null;
  return (
    <SegmentedControl
      size="xs"
      className={classes.choice}
      aria-label="What the colours of marks tell"
      value={colourBy}
      onChange={(value) => view.setState({ colourBy: value === 'device' ? 'device' : 'level' })}
      data={[
        { value: 'level', label: 'by level' },
        { value: 'device', label: 'by device' },
      ]}
    />
  );
}

function FreeFilter() {
  const app = useApp();
  const text = useView((view) => view.filter);
  const { problem } = parseFilter(text);
  return (
    <TextInput
      id={filterId}
      size="xs"
      className={classes.filter}
      aria-label="Filter points"
      placeholder="e.g. four-bit batch=1"
      title={problem ?? 'Words and comparisons, all of which must hold. Fields and metrics have the names of the CSV.'}
      leftSection={<IconFilter size={13} />}
      error={problem !== undefined}
      value={text}
      onChange={({ currentTarget }) => app.view.setState({ filter: currentTarget.value })}
    />
  );
}

function Chips() {
  const { view } = useApp();
  const hidden = useView(({ hiddenLevels }) => hiddenLevels.length);
  const isFiltered = useView(({ filter }) => filter !== '');
  const isZoomed = useView(({ zoom }) => Object.keys(zoom).length > 0);
  return (
    <div className={classes.chips}>
      <BrushChip />
      {hidden > 0 && (
        <Chip text={`${hidden} hidden`} undo="Show all levels" onClick={() => view.setState({ hiddenLevels: [] })} />
      )}
      {isFiltered && <Chip text="filtered" undo="Clear the filter" onClick={() => view.setState({ filter: '' })} />}
      {isZoomed && <Chip text="zoomed" undo="Show all of every chart" onClick={() => view.setState({ zoom: {} })} />}
    </div>
  );
}

/** For the table too: it lists what was chosen, and nothing else. */
function BrushChip() {
  const { view } = useApp();
  const brushed = useView((state) => state.brushed?.size);
  return brushed === undefined ? null : (
    <Chip
      text={`${brushed} ${brushed === 1 ? 'point' : 'points'} chosen`}
      undo="Show all points again"
      onClick={() => view.brush(undefined)}
    />
  );
}

interface ChipProps {
  readonly text: string;
  readonly undo: string;
  readonly onClick: () => void;
}

const Chip = ({ text, undo, onClick }: ChipProps) => (
  <button type="button" className={classes.chip} title={undo} aria-label={`${text}: ${undo}`} onClick={onClick}>
    {text}
    <IconX size={12} />
  </button>
);
