/** What stands where a chart would be, and what stands below one. */
import { Button, Group, Popover, Text } from '@mantine/core';
import { isActive } from '../../src-main/contract/run-state.ts';
import type { Kind } from '../series/kind.ts';
import type { Missing } from '../series/missing.ts';
import classes from './charts-panel.module.css';
import { examples, openExample } from './examples.ts';
import { useApp, useKind, useRun } from './use-app.ts';

export function NothingToDraw() {
  const app = useApp();
  const active = useRun(isActive);
  const points = useRun((run) => run.points.length);
  const kind = useKind();
  return (
    <div className={classes.empty}>
      <Text fw={600} c="var(--app-text)">
        {active
          ? 'The first point is being measured'
          : points > 0
            ? 'No point has these figures'
            : 'Nothing measured yet'}
      </Text>
      <Text size="sm" maw={420}>
        {active
          ? `${whatHappens(kind)} Points appear here as they are finished.`
          : points > 0
            ? 'Choose other axes or another phase; points that failed are listed in the table with their reasons.'
            : 'The sweep on the left is ready: press Run or Ctrl+Enter. Each level appears here as it is measured.'}
      </Text>
      {!active && points === 0 && (
        <>
          <Text size="sm" mt="sm">
            Or open a session measured on an NVIDIA H100:
          </Text>
          <Group gap="xs" justify="center" maw={420}>
            {examples.map((example) => (
              <Button key={example.fileName} size="xs" variant="default" onClick={() => void openExample(app, example)}>
                {example.label}
              </Button>
            ))}
          </Group>
        </>
      )}
    </div>
  );
}

function whatHappens(kind: Kind): string {
  if (kind === 'capacity') return 'Caches are allocated, sequence after sequence, until memory is refused.';
  const ofModel = kind === 'model' || kind === 'speculation';
  return `It is compared with ${ofModel ? 'the same model with an exact cache' : 'an fp64 reference of the same weights'}, then sampled.`;
}

/** A list of thousands would stall the window. */
const mostListed = 200;

/** One line, so that a failure does not move the chart; all of them in a list of its own. */
export function MissingPoints({ missing }: { readonly missing: readonly Missing[] }) {
  const app = useApp();
  if (missing.length === 0) return <div className={classes.missing} />;
  const told = ({ point, reason }: Missing): string =>
    `${point.config.level} · ${point.config.phase} · ${point.outcome}: ${reason}`;
  return (
    <div className={classes.missing}>
      <Popover position="top-start" width={460} shadow="md">
        <Popover.Target>
          <button type="button">
            {missing.length} not on the chart: {told(missing[0])}
            {missing.length > 1 && ' …'}
          </button>
        </Popover.Target>
        <Popover.Dropdown>
          <ul className={classes.missingList}>
            {missing.slice(0, mostListed).map((entry) => (
              <li key={entry.point.id}>
                <button type="button" onClick={() => app.view.select(entry.point.id)}>
                  {told(entry)}
                </button>
              </li>
            ))}
            {missing.length > mostListed && <li>and {missing.length - mostListed} more: see the table</li>}
          </ul>
        </Popover.Dropdown>
      </Popover>
    </div>
  );
}

interface HintProps {
  readonly title: string;
  readonly children: string;
}

/** Says what is missing, and what to do about it. */
export const Hint = ({ title, children }: HintProps) => (
  <div className={classes.empty}>
    <Text fw={600} c="var(--app-text)">
      {title}
    </Text>
    <Text size="sm" maw={420}>
      {children}
    </Text>
  </div>
);
