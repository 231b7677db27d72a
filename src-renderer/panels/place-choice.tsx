/** Where the next sweep runs. Not there while this machine is the only place. */
import { Select } from '@mantine/core';
import { useStore } from 'zustand';
import type { Place } from '../../src-main/contract/places.ts';
import classes from './fleet-panel.module.css';
import { useApp } from './use-app.ts';

const here = 'this machine';

const nameOf = (place: Place | undefined): string => {
  if (!place) return here;
  return place.kind === 'agent' ? `server ${place.host}` : 'the fleet';
};

export function PlaceChoice() {
  const app = useApp();
  const { places, chosen } = useStore(app.places);
  if (!places || (places.agents.length === 0 && places.queue === undefined)) return null;
  const choices: (Place | undefined)[] = [
    undefined,
    ...(places.queue === undefined ? [] : [{ kind: 'fleet' as const }]),
    ...places.agents.map((host) => ({ kind: 'agent' as const, host })),
  ];
  return (
    <div className={classes.place}>
      <Select
        size="xs"
        label="Runs on"
        allowDeselect={false}
        value={nameOf(chosen)}
        data={choices.map(nameOf)}
        onChange={(name) => app.places.choose(choices.find((place) => nameOf(place) === name))}
      />
    </div>
  );
}
