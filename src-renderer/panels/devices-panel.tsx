/** Devices side by side, of this session and of every baseline; what an hour costs is the user's to say. */
import { Group, Select, TextInput } from '@mantine/core';
import { useMemo, useState } from 'react';
import { useStore } from 'zustand';
import { ChartCard } from '../charts/chart-card.tsx';
import { DevicesChart } from '../charts/devices-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { type DeviceSet, type Devices, deviceMetrics, devicesOf } from '../series/devices.ts';
import { NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import classes from './charts-panel.module.css';
import { focusTable } from './data-grid.tsx';
import { useApp, useRun, useView } from './use-app.ts';
import { useBaselines } from './use-baselines.ts';

export function DevicesPanel({ points }: ChartPanelProps) {
  const app = useApp();
  const environment = useRun((run) => run.environment);
  const session = useRun((run) => run.session?.name);
  const prices = useView((view) => view.prices);
  const baselines = useBaselines();
  const known = useStore(app.baselines, (store) => store.points);
  const data = useMemo(() => {
    const sets: DeviceSet[] = environment ? [{ session: session ?? '', points, environment }] : [];
    for (const { id, name, colour, points: others } of baselines) {
      const of = known[id]?.environment;
      if (of) sets.push({ session: name, colour, points: others, environment: of });
    }
    return devicesOf(sets, prices);
  }, [points, environment, session, prices, baselines, known]);
  const { rows, shared } = data;
  return (
    <ChartCard
      title="Devices side by side"
      fileName="devices"
      description={`${rows.length} devices: ${rows.map(({ name }) => name).join(', ')}. ${inWords(data)}`}
      legend={[]}
      heading={<PriceFields names={[...new Set(rows.map(({ name }) => name))]} />}
      footer={<div className={classes.missing}>{rows.length > 0 && inWords({ rows, shared })}</div>}
      toCsv={() => csvOf(data)}
      onShowTable={focusTable}
      empty={rows.length === 0 ? <NothingToDraw /> : undefined}
    >
      {(size) => <DevicesChart data={data} {...size} />}
    </ChartCard>
  );
}

function inWords({ rows, shared }: Devices): string {
  if (rows.length < 2)
    return 'medians over its points · pick a session of another machine as a baseline to compare them';
  return shared > 0
    ? `medians over the ${shared} points that all of them measured`
    : 'medians over the points of each: no point was measured by all, so only shares of the roofline compare';
}

const csvOf = ({ rows }: Devices): string =>
  toCsv(
    [
      'device',
      'session',
      'machines',
      'points',
      'fmaFlopsPerSecond',
      'readBytesPerSecond',
      'pricePerHour',
      ...deviceMetrics,
    ],
    rows.map(({ name, session, hosts, points, fmaFlopsPerSecond, readBytesPerSecond, pricePerHour, medians }) => [
      ...[name, session, hosts.join(' '), points, fmaFlopsPerSecond?.[1], readBytesPerSecond?.[1], pricePerHour],
      ...medians,
    ]),
  );

function PriceFields({ names }: { readonly names: readonly string[] }) {
  const { view } = useApp();
  const prices = useView((state) => state.prices);
  const [picked, setPicked] = useState<string>();
  const [first] = names;
  const device = picked !== undefined && names.includes(picked) ? picked : first;
  if (device === undefined) return <span />;
  return (
    <Group gap={6} wrap="nowrap">
      <Select
        size="xs"
        w={230}
        aria-label="Device to price"
        allowDeselect={false}
        value={device}
        data={[...names]}
        onChange={(name) => setPicked(name ?? undefined)}
      />
      <PriceField key={device} price={prices[device]} onPrice={(price) => view.setPrice(device, price)} />
    </Group>
  );
}

interface PriceFieldProps {
  readonly price: number | undefined;
  readonly onPrice: (pricePerHour: number | undefined) => void;
}

function PriceField({ price, onPrice }: PriceFieldProps) {
  const [text, setText] = useState(price === undefined ? '' : String(price));
  const value = Number(text.replace(',', '.'));
  const isWrong = text.trim() !== '' && !(value > 0 && Number.isFinite(value));
  return (
    <TextInput
      size="xs"
      w={190}
      aria-label="Price of an hour of this device"
      title={isWrong ? 'A number above 0' : 'In your money; kept in this window, in no session'}
      placeholder="unknown"
      leftSection="price per hour"
      leftSectionWidth={96}
      error={isWrong}
      value={text}
      inputMode="decimal"
      onChange={({ currentTarget }) => {
        setText(currentTarget.value);
        const price = Number(currentTarget.value.replace(',', '.'));
        onPrice(currentTarget.value.trim() !== '' && price > 0 && Number.isFinite(price) ? price : undefined);
      }}
    />
  );
}
