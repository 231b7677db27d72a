/** The machines that measure for this window: the fleet behind its queue, and the servers whose agents it knows. */
import { Button, Code, Text, Title } from '@mantine/core';
import { type ReactNode, useEffect, useId } from 'react';
import { useStore } from 'zustand';
import type { DeviceInfo } from '../../src-main/contract/api.ts';
import { formatBytes, formatMetric, formatNumber, formatSeconds } from '../../src-main/contract/format.ts';
import type { AgentInfo, FleetHost, FleetView } from '../../src-main/contract/places.ts';
import classes from './fleet-panel.module.css';
import { useApp } from './use-app.ts';

export function FleetPanel() {
  const app = useApp();
  useEffect(() => app.places.watch(() => document.visibilityState === 'visible'), [app]);
  return (
    <div className={classes.panel}>
      <Fleet />
      <Servers />
    </div>
  );
}

function Section({ title, aside, children }: { title: string; aside?: ReactNode; children: ReactNode }) {
  const id = useId();
  return (
    <section className={classes.section} aria-labelledby={id}>
      <div className={classes.head}>
        <Title order={2} size="sm" id={id}>
          {title}
        </Title>
        {aside}
      </div>
      {children}
    </section>
  );
}

function Fleet() {
  const app = useApp();
  const { fleet, failure, places } = useStore(app.places);
  if (fleet === null)
    return (
      <Section title="Fleet">
        <Text size="sm" c="var(--app-quiet)">
          This window has no queue. Start one and give it to FastMQA; the password stays in FASTMQA_QUEUE_PASSWORD:
        </Text>
        <Code block className={classes.command} tabIndex={0}>
          {'redis-server --appendonly yes\nfastmqa worker --queue redis://HOST\nfastmqa serve --queue redis://HOST'}
        </Code>
      </Section>
    );
  return (
    <Section title="Fleet" aside={<span className={classes.address}>{places?.queue ?? fleet?.queue}</span>}>
      {failure !== undefined && <p className={classes.trouble}>{failure}</p>}
      {fleet?.outOfReach !== undefined && <p className={classes.trouble}>{fleet.outOfReach}</p>}
      {fleet && fleet.outOfReach === undefined && <FleetFigures fleet={fleet} />}
    </Section>
  );
}

function FleetFigures({ fleet }: { readonly fleet: FleetView }) {
  const { hosts, waiting, atWork, pointsPerMinute, etaSeconds } = fleet;
  const left = waiting + atWork;
  return (
    <>
      <dl className={classes.figures} aria-label="The fleet now">
        <dt>points waiting</dt>
        <dd>{formatMetric(waiting, 'count')}</dd>
        <dt>being measured</dt>
        <dd>{atWork}</dd>
        <dt>points per minute</dt>
        <dd>{rateOf(pointsPerMinute)}</dd>
        <dt>time left</dt>
        <dd>{left === 0 ? '–' : etaSeconds === undefined ? 'unknown' : formatSeconds(Math.ceil(etaSeconds))}</dd>
      </dl>
      {hosts.length === 0 ? (
        <>
          <Text size="sm" c="var(--app-quiet)">
            No worker is at work for this queue: what is submitted waits. Start one on each machine that measures:
          </Text>
          <Code block className={classes.command} tabIndex={0}>
            {`npm run -s fastmqa -- worker \\\n  --queue ${fleet.queue}`}
          </Code>
        </>
      ) : (
        <ul className={classes.list} aria-label="Workers">
          {hosts.map((host) => (
            <Worker key={host.id} host={host} />
          ))}
        </ul>
      )}
    </>
  );
}

function Worker({
  host: { host, device, backend, memoryBytes, fits, version, done, pointsPerMinute, doing },
}: {
  readonly host: FleetHost;
}) {
  const state = !fits ? 'other' : doing === undefined ? 'waiting' : 'busy';
  return (
    <li className={classes.row} data-state={state}>
      <div className={classes.title}>
        <span className={classes.name}>{host}</span>
        <span className={classes.rate}>{rateOf(pointsPerMinute)} per minute</span>
      </div>
      <div className={classes.facts}>
        {device} · {backend} · {formatBytes(memoryBytes).replace(' ', '\u00a0')}
      </div>
      <div className={classes.facts}>
        <span className={classes.state}>
          {fits ? (doing ?? 'waiting for points') : `takes no points: its kernels are others, ${version}`}
        </span>
        {fits && <span>{done === 1 ? '1 point done' : `${formatMetric(done, 'count')} points done`}</span>}
      </div>
    </li>
  );
}

const rateOf = (perMinute: number): string => (perMinute === 0 ? '0' : formatNumber(perMinute));

function Servers() {
  const app = useApp();
  const { places, agents, asking } = useStore(app.places);
  const known = places?.agents ?? [];
  const ask = (
    <Button size="compact-xs" variant="default" loading={asking} onClick={() => void app.places.askAgents()}>
      Refresh
    </Button>
  );
  return (
    <Section title="Servers" aside={known.length > 0 ? ask : undefined}>
      {places && known.length === 0 && (
        <>
          <Text size="sm" c="var(--app-quiet)">
            No server yet. Reach one once from a terminal, over your own ssh, and it is listed here:
          </Text>
          <Code block className={classes.command} tabIndex={0}>
            npm run -s fastmqa -- agents HOST
          </Code>
        </>
      )}
      <ul className={classes.list} aria-label="Servers">
        {known.map((host) => (
          <Server key={host} host={host} agent={agents?.find((agent) => agent.host === host)} />
        ))}
      </ul>
    </Section>
  );
}

function Server({ host, agent }: { readonly host: string; readonly agent: AgentInfo | undefined }) {
  const runs = agent?.runs ?? [];
  const state = !agent ? 'unknown' : !agent.reachable || !agent.fits ? 'other' : runs.length > 0 ? 'busy' : 'waiting';
  return (
    <li className={classes.row} data-state={state}>
      <div className={classes.title}>
        <span className={classes.name}>{host}</span>
        {agent?.machine !== undefined && agent.machine !== host && (
          <span className={classes.rate}>{agent.machine}</span>
        )}
      </div>
      {agent && !agent.reachable && <p className={classes.trouble}>{agent.reason}</p>}
      {agent?.reachable && !agent.fits && <p className={classes.trouble}>its kernels are not those of this program</p>}
      {agent?.devices
        .filter(({ usable }) => usable)
        .map((device) => (
          <div key={device.backend} className={classes.facts}>
            {inWords(device)}
          </div>
        ))}
      {runs.map(({ run, name, status, rows }) => (
        <div key={run} className={classes.facts}>
          <span className={classes.state}>{name}</span>
          <span>
            {rows} points, {status === 'ended' || status === 'idle' ? 'kept until collected' : 'measuring'}
          </span>
        </div>
      ))}
    </li>
  );
}

const inWords = ({ backend, name, memoryBytes, fmaFlopsPerSecond, readBytesPerSecond }: DeviceInfo): string =>
  [
    name ?? backend,
    memoryBytes === undefined ? undefined : formatBytes(memoryBytes),
    fmaFlopsPerSecond === undefined ? undefined : formatMetric(fmaFlopsPerSecond, 'FLOP/s'),
    readBytesPerSecond === undefined ? undefined : `${formatMetric(readBytesPerSecond, 'bytes/s')} read`,
  ]
    .filter(Boolean)
    .join(' · ');
