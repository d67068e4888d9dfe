"""The hand-written phrases behind `assistant.py`: what people say to an assistant, intent by intent.

One phrase a line, in the case it has in the middle of a sentence. The mark at its end says how it is said: a question
ends with "?", a remark with ".", and an order (which can follow "could you") with neither. ``{name}`` is filled from
`SLOTS`; ``[a|b|]`` is one of its alternatives, the last one here being nothing.
"""

from typing import NamedTuple


class Intent(NamedTuple):
    """How often an intent is asked for, relative to the others, and the ways to ask."""

    weight: float
    phrases: str


INTENTS: dict[str, Intent] = {
    "set_alarm": Intent(
        1.0,
        """
set an alarm for {clock}
set an alarm for {clock} {on_day}
wake me up at {clock}
wake me [up|] at {clock} {on_day}
get me up at {clock} [tomorrow|]
set my alarm to {clock}
make sure I'm awake by {clock}
put an alarm on for {clock}
give me a wake up call at {clock}
change my [morning|] alarm to {clock}
move my alarm from {clock} to {clock}
push my alarm back [by|] {duration}
turn on my {clock} alarm
set two alarms, one for {clock} and one for {clock}
set a repeating alarm for {clock} on weekdays
turn off my alarm for {day}
cancel the {clock} alarm
set an alarm so I don't miss {event}
set the alarm, not the timer, for {clock}
ring the alarm at {clock} [sharp|] {on_day}
set a [gentle|loud|quiet] alarm for {clock}
wake me up with {genre} at {clock}
alarm for {clock} please.
alarm {clock} {on_day}.
I need to be up by {clock} {on_day}.
I have to get up at {clock} for {event}.
I want to sleep until {clock}.
no timer this time, I need an alarm at {clock}.
can't oversleep {on_day}, I have {event} at {clock}.
what time is my alarm set for?
is my alarm on for {day}?
do I have an alarm set for {clock}?
how many alarms do I have [tomorrow|on weekdays]?
what alarms are on for {day}?
""",
    ),
    "set_timer": Intent(
        0.9,
        """
set a timer for {duration}
start a {mins} minute timer
start the timer
start a countdown of {duration}
count down {duration}
time {duration} [for the {pot}|]
put {duration} on the clock
put {duration} on the timer
give me {duration} on the timer
set a [kitchen|second|new|] timer for {duration}
add {mins} minutes to the timer
add another {mins} minutes
pause the timer
cancel the timer
stop the {mins} minute timer
restart the timer from {duration}
set a timer called {pot} for {duration}
set a {mins} minute timer for the {pot}
set the timer, not the alarm, to {duration}
time me for {duration} starting now
run a stopwatch
tell me when {duration} are up
beep when {duration} have passed
timer for {duration}.
{duration} on the timer please.
{mins} minute timer starting now.
the {pot} has to cook for {duration}.
the {pot} needs {duration}, start now.
I need a timer for {duration}.
I don't want an alarm, just a countdown from {duration}.
how much time is left on the timer?
how long is left for the {pot}?
how many minutes are left on my {pot} timer?
is the timer still running?
""",
    ),
    "set_reminder": Intent(
        1.0,
        """
remind me to {task}
remind me to {task} {on_day}
remind me to {task} at {clock}
remind me at {clock} to {task}
remind me in {duration} to {task}
remind me about {event} {on_day}
remind me [every Monday|every week|every morning] to {task}
set a reminder to {task}
set a reminder for {event} {on_day}
set a reminder for {clock} to {task}
create a reminder to {task} {on_day}
make a reminder that I have to {task}
give me a nudge to {task} {on_day}
nudge me at {clock} to {task}
don't let me forget to {task}.
don't let me forget {event} {on_day}.
make sure I remember to {task} {on_day}
remind me when I get to {place} to {task}
remind me when I leave {place} to {task}
remind me to call {person} back at {clock}
remind me to text {person} {on_day}
remind me to buy {item} on the way home
remind me to check the oven in {duration}
remind me [an hour|a day|ten minutes] before {event}
cancel the reminder to {task}
change my reminder for {event} to {clock}
delete the reminder about {event}
reminder to {task} at {clock}.
reminder for {day}, {task}.
I keep forgetting to {task}, so remind me {on_day}.
I'd like to be reminded to {task} {on_day}.
I need a reminder, not a calendar entry, for {event}.
what reminders do I have for {day}?
did I set a reminder to {task}?
can you remind me later to {task}?
""",
    ),
    "add_event": Intent(
        0.95,
        """
add {event} to my calendar
add {event} to my calendar for {day} at {clock}
put {event} on my calendar {on_day}
put {event} in my diary for {day}
put {event} in the calendar at {clock} {on_day}
schedule {event} for {clock} {on_day}
schedule {event} for {day}
book {event} into my calendar {on_day}
create an event for {event} {on_day}
create a calendar entry for {event}
make an appointment for {event} at {clock}
block {duration} for {event} {on_day}
block off {day} from {clock} to {clock}
block out my afternoon {on_day}
move {event} to {day}
move {event} from {clock} to {clock}
reschedule {event} for {day} at {clock}
push {event} back to {clock}
cancel {event} {on_day}
take {event} off my calendar
invite {person} to {gathering} {on_day}
add {person} to {gathering} {on_day}
set up a meeting with {person} {on_day}
set up {event} for {clock}
pencil in {event} for {day}
mark me as busy {on_day}
change the location of {event} to {place}
new event, {event}, {clock} {on_day}.
{event} is {on_day} at {clock}, put that in the calendar.
{person} and I agreed on {clock} {on_day}, add it to the calendar.
no need for a reminder, just put {event} in the calendar.
{event} got moved to {clock}, update my calendar.
I'm away {on_day}, put that in my calendar.
can you find a slot for {event} {on_day}?
""",
    ),
    "check_calendar": Intent(
        0.8,
        """
what's on my calendar {on_day}?
what's in my diary for {day}?
what do I have {on_day}?
what meetings do I have {on_day}?
do I have anything {on_day} at {clock}?
do I have any meetings {on_day}?
am I free {on_day}?
am I free at {clock} {on_day}?
am I busy {on_day}?
when is {event}?
what time is {event}?
what time is {event} {on_day}?
what time does my first meeting start {on_day}?
when is my next [appointment|meeting|call]?
what's my next [appointment|meeting]?
who is coming to {gathering} {on_day}?
where is {event} {on_day}?
how many meetings do I have {on_day}?
is {event} still on for {day}?
when am I meeting {person}?
when am I supposed to see {person}?
does {event} clash with anything?
have I got time for {event} {on_day}?
how long is {event} {on_day}?
is there a gap in my schedule {on_day}?
show me my calendar for {day}
show me my schedule {on_day}
read me my appointments for {day}
go through my agenda for {day}
check if I'm free {on_day} at {clock}
check my calendar for {event}
look up when {event} is
tell me my schedule for {day}
I can't remember what time {event} is.
I think I have something at {clock} {on_day}, not sure what.
""",
    ),
    "weather": Intent(
        1.0,
        """
what's the weather [like|] in {city}?
what's the weather like {on_day}?
what's the weather in {city} {on_day}?
what's the forecast for {day}?
what's the forecast for {city} {on_day}?
is it going to rain {on_day}?
will it rain {on_day} in {city}?
will it snow {on_day}?
will it be {sky} {on_day}?
is it {sky} in {city} right now?
do I need an umbrella {on_day}?
do I need a coat {on_day}?
should I bring a jacket to {event} {on_day}?
how hot will it get in {city} {on_day}?
how cold is it outside?
how cold will it be {on_day}?
how windy is it going to be {on_day}?
what's the temperature outside?
what's the temperature in {city}?
what's the low for {day}?
when does the sun set {on_day}?
when will it stop raining?
is it warm enough to eat outside {on_day}?
is it a good day to hang the washing out?
what are the chances of rain for {event}?
what's the humidity in {city}?
is there a storm coming {on_day}?
is the rain going to last all day?
give me the forecast for {day}
check the weather for {city} {on_day}
tell me if it'll be {sky} {on_day}
weather in {city}.
weather for {day} please.
{city} forecast for {day}.
I'm flying to {city} {on_day}, what should I wear?
I want to hang the laundry outside {on_day}, tell me if it'll stay dry.
""",
    ),
    "play_music": Intent(
        1.0,
        """
play {song}
play some {genre}
play {song} by {band}
play something by {band}
play my {playlist} playlist
play the new album by {band}
play some music for {activity}
play {genre} in the {room}
play {genre} quietly
put on some {genre}
put on {band}
put on my {playlist} playlist
put some {genre} on while I'm {doing}
shuffle my {playlist} playlist
shuffle songs by {band}
skip this song
go to the next track
play the last song again
repeat this song
pause the music
resume the music
stop the music
queue {song}
queue up some {genre} after this
find a radio station that plays {genre}
start the {playlist} playlist [from the beginning|on shuffle|]
turn on some {genre}
turn the music on in the {room}
save this song to my {playlist} playlist
switch to {genre}
some {genre} please.
I want to hear {song}.
I want to listen to {band}.
I'm in the mood for some {genre}.
I need music for {activity}.
what song is this?
who sings this?
have you got anything new by {band}?
""",
    ),
    "volume": Intent(
        0.6,
        """
turn the volume up
turn the volume down
turn up the volume [a bit|a little|to {percent}]
turn down the volume in the {room}
set the volume to {level}
set the volume to {percent}
set the speaker in the {room} to {percent} volume
raise the volume by {level}
lower the volume [by {level}|a little|a lot]
lower the music
turn the music down a bit
turn the music up
turn the speaker down
turn down the TV
mute the [speaker|TV|sound|{room}]
unmute the [speaker|TV|sound]
make it louder
make the {genre} quieter
make it [a bit|a lot] quieter in the {room}
put the volume at {level}
put the sound back on
turn the sound off
drop the volume, {person} is sleeping
bring the music down while I'm {doing}
change the volume back to what it was
increase the volume of my alarm
volume {level}.
volume up.
volume down [please|a bit].
[a bit|a little|much] louder please.
a bit quieter please.
I can't hear the music over the {noise}.
the music is too loud.
the speaker in the {room} is way too quiet.
this song is great, louder.
what's the volume at?
why is it so loud in the {room}?
""",
    ),
    "lights": Intent(
        0.85,
        """
turn on the lights
turn off the {room} lights
turn the {room} light on
turn off the lights in the {room}
turn off all the lights
turn on the {lamp}
turn off the {lamp} in the {room}
switch the {room} lights off
switch on the {lamp}
dim the lights
dim the lights in the {room} to {percent}
dim the {lamp} [a little|by half|]
brighten the {room}
brighten the {lamp} a bit
set the {room} lights to {percent}
set the {room} lights to {colour}
make the {room} lights {colour}
make the lights [warmer|cooler|softer]
make it brighter in the {room}
change the {lamp} to {colour}
put the {room} lights on
put the {lamp} on {colour}
kill the lights in the {room}
turn the lights off at {clock}
turn the lights off in {duration}
turn the lights down for {activity}
leave the {lamp} on for {duration}
set the lights for {activity}
lights off.
lights on in the {room}.
{room} lights to {percent}.
it's too dark in the {room}.
the {lamp} is too bright.
I can't see anything in the {room}.
are the {room} lights still on?
did I leave the {lamp} on?
""",
    ),
    "thermostat": Intent(
        0.7,
        """
set the thermostat to {degrees}
set the heating to {degrees}
set the temperature to {degrees} in the {room}
turn the heating up
turn the heat down [a bit|by two degrees|]
turn the heating on in the {room}
turn off the heating
turn on the air conditioning
turn the air con down to {degrees}
turn the AC off in the {room}
switch the heating off at {clock}
switch the thermostat to [away|eco|cooling] mode
raise the temperature [by two degrees|a little|to {degrees}]
lower the temperature in the {room}
lower the thermostat to {degrees}
make it warmer in the {room}
make it [a bit|a few degrees] cooler in here
heat the {room} to {degrees}
warm up the {room} before {clock}
warm the house up before I get home
cool the {room} down to {degrees}
keep the {room} at {degrees} overnight
put the heating on for {duration}
change the thermostat to {degrees}
heating to {degrees} please.
thermostat at {degrees}.
it's freezing in the {room}.
it's too hot in here.
I'm cold, put the heating on.
the {room} is boiling.
what's the thermostat set to?
what's the temperature in the {room}?
is the heating on [in the {room}|]?
how warm is it in the {room}?
when does the heating come on?
""",
    ),
    "shopping_list": Intent(
        0.9,
        """
add [some|more|] {item} to my shopping list
add {item} and {item} to the shopping list
add {item}, {item} and {item} to the grocery list
add [a pack of|lots of|] {item} to the groceries
put {item} on the shopping list
put {item} and {item} on the grocery list
put {item} down for the supermarket
take {item} off the shopping list
remove {item} from my grocery list
cross {item} off the shopping list
clear my shopping list
read me the shopping list
show me the grocery list
write down {item} for the next shop
note that we need {item} from the supermarket
start a new shopping list with {item}
change {item} to {item} on the shopping list
add everything for {dish} to the shopping list
add what we need for {dish} to my groceries
order more {item}
we're out of {item}.
we need {item} and {item}.
we're running low on {item}.
I used up the last of the {item}, put some on the list for the supermarket.
I'm at the shop, read me what we need.
I need to buy {item}, {item} and {item}.
{item}, {item} and {item} for the shopping.
shopping list, {item} and {item}.
not a reminder, just put {item} on the shopping list.
what's on my shopping list?
what do we need from the supermarket?
did we put {item} on the shopping list?
did I put {item} on the list?
how many things are on the grocery list?
do we still need {item}?
""",
    ),
    "todo_list": Intent(
        0.85,
        """
add {task} to my to-do list
add {task} to my list of things to do
add a task to {task}
add {task} to my tasks for {day}
put {task} on my to-do list
put {task} on the to-do list for {day}
put "{task}" at the top of my list
create a task to {task}
create a new to-do, {task}
put {task} on my to-do list as urgent
mark {task} as done
mark {task} as complete
tick off {task}
cross {task} off my to-do list
check off {task}
remove {task} from my to-do list
delete the task about {event}
read me my to-do list
show me my open tasks
show me everything I still have to do {on_day}
clear my to-do list
move "{task}" to the bottom of my to-do list
start a to-do list for {gathering}
write a to-do, {task}
new task, {task}.
to-do, {task} {on_day}.
one more for the to-do list, {task}.
I finished my task to {task}, tick it off.
I've done the first thing on my to-do list.
don't remind me, just put {task} on my tasks.
what's on my to-do list?
what's on my to-do list for {day}?
what tasks do I have left?
what's the next thing on my to-do list?
how many open tasks do I have?
is {task} on my to-do list?
""",
    ),
    "send_message": Intent(
        1.0,
        """
send a message to {person}
send a message to {person} saying {note}
send {person} a text saying {note}
send {person} a text
text {person}
text {person} that {message}
text {person} and say {note}
message {person} that {message}
tell {person} {message}
tell {person} that {message}
let {person} know {message}
let {person} know that {message}
reply to {person} [that|] {message}
reply that {message}
answer {person} with {note}
write to {person} that {message}
write {person} a message
ask {person} if they're free {on_day}
ask {person} to pick up {item}
ask {person} what time {event} is
ask {person} to {task}
text {person} instead of calling, say {note}
send {person} my location
send {person} the address of {place}
send the family group a message that {message}
forward the last message to {person}
message {person} about {event}
email {person} about {event}
email {person} that {message}
text for {person}, {note}.
message to {person}, {note}.
I want to text {person}.
I need to tell {person} that {message}.
I can't call right now, text {person} that {message}.
can you tell {person} I can't make it to {event}?
could you ask {person} whether {event} is still on?
""",
    ),
    "read_messages": Intent(
        0.5,
        """
read my messages
read me my [new|unread|latest] messages
read me the last message from {person}
read me my texts
read out the message from {person}
read that text again
read me my unread emails
check my messages
check if {person} has replied
check whether {person} texted me back
show me my messages from {person}
open my inbox
open the last text from {person}
play my voicemail
play the voice message from {person}
go through my unread messages
tell me what {person} said
tell me what {person} wrote about {event}
search my messages for {event}
find the message where {person} mentioned {event}
do I have any new messages?
do I have any messages from {person}?
did {person} text me?
did {person} reply [yet|]?
did {person} say anything about {event}?
has {person} answered my message?
what did {person} say?
what did {person} write {on_past}?
what was the last thing {person} sent me?
who texted me?
who just messaged me?
how many unread messages do I have?
any new messages?
any emails from {person}?
my phone just buzzed, what does it say?
my phone just buzzed, read it to me.
I can't look at the screen, tell me what {person} wrote.
unread messages please.
""",
    ),
    "make_call": Intent(
        0.75,
        """
call {person}
call {person} on speaker
call {person} back
call {person} at work
call {person} on [their mobile|the work number]
call {office}
call the {business}
call the {business} on {street}
phone {person}
phone the {business}
ring {person}
ring {person} on the home phone
give {person} a call
give the {business} a ring
dial {person}
dial the {business}
dial the last number
redial
start a video call with {person}
make a call to {person}
place a call to the {business}
get {person} on the phone
get {person} on the line
put me through to {person}
try calling {person} again
hang up
answer the call
don't text, call {person}.
call {person} and tell them {message}
call the {business} to ask about their opening hours
video call with {person} please.
I want to talk to {person}.
I'd like to speak to {person}.
I need to call {person} about {event}.
I don't want to text, I want to ring {person}.
can I speak to {person}?
what's the number of the {business}?
did I miss a call from {person}?
""",
    ),
    "navigate": Intent(
        0.9,
        """
navigate to {place}
navigate to {city}
navigate me to {street}
take me to {place}
take me home
take me to {place} [without tolls|avoiding the motorway]
take me to the nearest {business}
give me directions to {place}
give me directions to the nearest {business}
give me directions from {place} to {city}
get me to {place} by {clock}
get directions to {street}
start navigation to {place}
start the route to {city}
show me the way to {place}
show me the route to {city}
show me how to get to {place} on foot
find the route to {place}
find a route to {city} [without tolls|along the coast|that avoids the motorway]
plan a route to {city} with a stop at the {business}
add a stop at the {business}
guide me to {street}
drive me to {place} via {street}
reroute me through {street}
avoid the motorway
stop navigation
route to {place}.
directions to {street} please.
I need to get to {place}.
I'm lost, get me back to {street}.
I want to drive to {city}.
I'm walking, take me to {place}.
how do I get to {place}?
how do I get to {place} from {street}?
which way is {place}?
which exit do I take for {city}?
which bus goes to {place}?
""",
    ),
    "traffic": Intent(
        0.65,
        """
how's the traffic?
how's the traffic to {place}?
how's the traffic on {road}?
how's traffic on the way to {city}?
how bad is the traffic on {road}?
how busy are the roads to {place}?
is there much traffic on {road}?
is there traffic on my way to {place}?
is there an accident on {road}?
are there any accidents between here and {city}?
are there any delays on {road}?
are there roadworks on {street}?
is {road} open?
is {street} closed {on_day}?
is {road} still blocked?
is it stop and go on {road}?
how long is the drive to {place} with traffic?
how long will my commute take {on_day}?
how much longer because of the jam on {road}?
why is {road} so slow?
why is everyone standing still on {road}?
what's traffic like {on_day} around {clock}?
what's the traffic like near {place}?
what's happening on {road}?
will I hit traffic if I leave at {clock}?
will there be jams on {road} {on_day}?
when should I leave for {place} to miss the traffic?
when does rush hour ease off on {road}?
check the traffic on {road}
check the traffic before I leave for {place}
give me a traffic report for {city}
tell me about delays on the way to {place}
warn me about jams on {road}
traffic to {place}.
traffic on {road} please.
I'm stuck on {road}, what's going on?
I don't need directions, just the traffic to {place}.
""",
    ),
    "book_table": Intent(
        0.7,
        """
book a table for {people} at {restaurant}
book a table at {restaurant} {on_day}
book a table for {people} {on_day} at {clock}
book us a table at {restaurant} for {clock}
book {restaurant} for {people} {on_day}
book dinner for {people} at {restaurant}
book a {cuisine} restaurant for {people} {on_day}
reserve a table for {people} at {clock}
reserve a table at {restaurant} {on_day}
reserve a table outside at {restaurant}
reserve a spot at the {cuisine} place for {day}
make a reservation for {people} at {restaurant}
make a dinner reservation {on_day} at {clock}
make a lunch reservation for {people}
get us a table at {restaurant} {on_day}
get me a reservation at a {cuisine} place {on_day}
see if {restaurant} has a table {on_day}
see if we can get in at {restaurant} at {clock}
change our reservation at {restaurant} to {clock}
change the booking to {people}
move our table at {restaurant} to {day}
cancel my reservation at {restaurant}
cancel the table for {day}
add two more people to our booking at {restaurant}
ask {restaurant} for a table for {people} {on_day}
ask for a table by the window at {restaurant}
table for {people} at {restaurant}, {clock}.
table for {people} {on_day} please.
dinner reservation for {people} {on_day}, somewhere {cuisine}.
I'd like a table for {people} at {restaurant}.
I need a reservation for {people} {on_day}.
we want to eat at {restaurant} {on_day}, table for {people}.
does {restaurant} have a table free {on_day}?
can I get a table at {restaurant} {on_day}?
is there a table for {people} at {restaurant} at {clock}?
""",
    ),
    "find_place": Intent(
        0.7,
        """
find a {cuisine} restaurant nearby
find a {business} near me
find a {business} near {place}
find me a good {cuisine} place in {city}
find somewhere to eat near {place}
find the closest {business}
show me {cuisine} restaurants near {street}
show me the best rated {business} around here
look for a {business} on the way
look up a {business} in {city}
list some {cuisine} restaurants with good reviews
recommend a {cuisine} place for {people}
recommend a {business} in {city}
suggest somewhere for dinner near {place}
search for a {business} open now
search for {cuisine} food around {street}
where's the nearest {business}?
where's the closest {business} to {place}?
where can I get good {dish} around here?
where can I buy {item} at this hour?
where can I eat {cuisine} food in {city}?
is there a {business} around here?
is there a {business} near {street}?
is the {business} on {street} open?
is the {business} open {on_day}?
what time does the {business} close?
what time does the {business} on {street} open {on_day}?
what's a good restaurant for {people}?
what's the best {cuisine} restaurant in {city}?
which {business} is open {on_day}?
are there any good {cuisine} places in {city}?
any {cuisine} places with outdoor seating nearby?
how late is the {business} open?
good {cuisine} food near {place}.
I'm looking for a {business} near {place}.
I need a {business} that's open at {clock}.
""",
    ),
    "translate": Intent(
        0.7,
        """
translate {said} to {language}
translate {said} into {language}
translate this into {language}, {said}
translate {foreign} to English
translate {foreign} for me
translate the last message into {language}
translate this sign from {language}
translate {food} into {language}
say {said} in {language}
say {food} in {language}
put {said} into {language}
give me the {language} for {said}
give me the {language} word for {noun}
tell me how to say {said} in {language}
teach me to say {said} in {language}
help me order {dish} in {language}
help me ask for {food} in {language}
turn {said} into {language}
write {said} in {language}
how do you say {said} in {language}?
how do I say {said} in {language}?
how do you say {noun} in {language}?
how would I ask for {food} in {language}?
how do you write {noun} in {language}?
what's {said} in {language}?
what's {noun} in {language}?
what's the {language} word for {noun}?
what does {foreign} mean in English?
what's {foreign} in English?
what do they call {food} in {language}?
is {foreign} {language} for something?
{said} in {language} please.
{noun} in {language}.
I need {said} in {language}.
I'm in {city} and want to say {said} to the waiter.
""",
    ),
    "define": Intent(
        0.65,
        """
define {word}
define the word {word}
give me the definition of {word}
give me a synonym for {word}
look up {word} in the dictionary
look up the word {word}
explain the word {word}
explain what {word} means
explain what {concept} is
tell me what {word} means
tell me the meaning of {word}
tell me the difference between {word} and {word}
tell me where the word {noun} comes from
spell {word}
use {word} in a sentence
what does {word} mean?
what does the word {word} mean?
what does it mean when someone is called {trait}?
what's the definition of {word}?
what's the meaning of {word}?
what's another word for {word}?
what's the opposite of {trait}?
what's {concept}?
what is {concept} exactly?
what's the difference between {word} and {word}?
what does {concept} mean?
how do you spell {word}?
how do you pronounce {word}?
how would you define {concept}?
is {word} a real word?
where does the word {noun} come from?
definition of {word}.
meaning of {word} please.
synonyms for {word}.
{person} called me {trait}, no idea what that means.
I read {word} in a book and don't know what it means.
""",
    ),
    "convert_units": Intent(
        0.65,
        """
convert {n} {from_to}
convert {n} {from_to} for me
change {n} {from_to}
give me {n} {from_in}
work out {n} {from_in}
tell me how many {pair_in}
tell me what {n} {from_in} is
what's {n} {from_in}?
what is {n} {from_in}?
what's {n} {from_to}?
what's {degrees} in [Fahrenheit|Celsius]?
how much is {n} {from_in}?
how much is {n} {money} in {money}?
how many {pair_in}?
how many {pair_in} again?
how many {pair_per}?
how many [grams|ounces|milliliters] are in a cup of {baking}?
how many [teaspoons|tablespoons|milliliters] are in {n} cups?
how many [dollars|euros|pounds] do I get for {n} {money}?
how far is {n} {dist_in}?
how heavy is {n} {mass_in}?
how hot is {oven} in [Celsius|Fahrenheit]?
how tall is {height} in centimeters?
what's {height} in meters?
what gas mark is [180|200|220|350|400] degrees?
what's the exchange rate from {money} to {money}?
what would {n} {from_in} be?
{n} {from_to}.
{n} {from_in} please.
{n} {money} in {money}.
the recipe says {oven}, what's that in Celsius?
the map says {n} miles, what's that in kilometers?
my suitcase weighs {m} pounds, what's that in kilos?
I have {n} {money}, how much is that in {money}?
""",
    ),
    "calculate": Intent(
        0.6,
        """
calculate {sum}
calculate {percent} of {big}
calculate a {tip} percent tip on {big}
add {n} and {big}
add up {n}, {m} and {big}
multiply {n} by {m}
divide {big} by {m}
subtract {n} from {big}
take {percent} off {big}
split {big} {money} between {people}
split the bill of {big} between {people}
work out {sum}
work out {percent} of {big}
solve {sum}
round {big} divided by {m} to two decimals
tell me what {sum} is
what's {sum}?
what is {sum}?
what's {percent} of {big}?
what's {big} minus {percent}?
what's the square root of {big}?
what's {n} squared?
what's a {tip} percent tip on {big}?
what's half of {big}?
what's the average of {n}, {m} and {big}?
how much is {sum}?
how much is {big} {money} plus {percent} tax?
how much is {big} split between {people}?
how much does each of us pay if it's {big} between {people}?
how many times does {m} go into {big}?
if I save {n} {money} a week, how much is that in a year?
if {m} tickets cost {big}, how much is one?
is {big} divisible by {m}?
{sum}.
{percent} of {big}.
{n} of them at {m} {money} each, total please.
the bill is {big}, add {tip} percent.
""",
    ),
    "news": Intent(
        0.6,
        """
what's in the news [today|this morning|]?
what's happening in {city}?
what's happening in the world [today|]?
what's the latest on {topic}?
what are the headlines [today|this morning|]?
what's the top story?
what's new in {field}?
what happened with {topic}?
what happened in {city} {on_past}?
what are people saying about {topic}?
any news about {topic}?
any news from {city}?
any big stories in {field} today?
is there anything new on {topic}?
is there any news on {topic} today?
did anything happen in {field} {on_past}?
who won the {contest}?
how did the {contest} end?
give me the news
give me the headlines
give me a {mins} minute news summary
give me the latest {field} news
read me the news
read me the headlines about {topic}
read me the [local|world|{field}] news
play the news
play the [morning|evening] bulletin
tell me what's going on with {topic}
tell me the news from {city}
catch me up on {topic}
brief me on {field}
skip to the {field} news
search the news for {topic}
headlines please.
{field} news please.
the latest on {topic}.
I haven't heard about {topic} in days, update me.
I missed the news {on_past}.
""",
    ),
    "tell_joke": Intent(
        0.42,
        """
tell me a joke
tell me a joke about {joke_topic}
tell me another joke
tell me something funny
tell me something funny about {joke_topic}
tell {person} a joke
tell me a knock knock joke
tell me your best joke about {joke_topic}
tell the kids a [clean|silly|short] joke
tell me a riddle
give me a [dad joke|pun|one liner|riddle]
give me a joke for {name}'s birthday card
give me a pun about {joke_topic}
make me laugh
make {person} laugh
make a joke about the weather
make a pun with {noun}
crack a joke
say something funny
read me a [funny|silly] one liner
do you know any jokes?
do you know a joke about {joke_topic}?
do you know a good one about {joke_topic}?
have you got any jokes for {person}?
got any [dad|knock knock|bad] jokes?
heard any good jokes {on_past}?
what's the funniest joke you know?
what's your favourite joke?
why did the chicken cross the road?
what do you call a funny {noun}?
another one, but funnier.
a joke about {joke_topic} please.
one more joke.
I need a laugh.
I need a joke for my speech at the [wedding|party|retirement dinner].
I bet you can't make {person} laugh.
that joke was terrible, give me a better one.
""",
    ),
    "track_package": Intent(
        0.6,
        """
where's my package?
where's my {parcel}?
where is the {parcel} I ordered {on_past}?
where's my order right now?
when will my {parcel} arrive?
when will my package get here?
when is my {parcel} due?
when's the delivery of the {parcel} coming?
what time is the courier coming {on_day}?
what's the status of my order?
what's the status of the {parcel} delivery?
what's the tracking number for my {parcel}?
has my {parcel} shipped [yet|]?
has my order been sent out?
has the {parcel} left the warehouse?
is my {parcel} out for delivery?
is my package still coming {on_day}?
is my {parcel} going to be late?
did my {parcel} get delivered?
did the courier leave my {parcel} with the neighbour?
how long until my {parcel} gets here?
how many deliveries am I expecting {on_day}?
why is my {parcel} taking so long?
who signed for my {parcel}?
track my package
track my {parcel}
track the order I placed {on_past}
check on my {parcel} delivery
check if my {parcel} has been delivered
check the delivery status of my {parcel}
find out where my {parcel} is
tell me when the {parcel} will arrive
look up my {parcel} order
follow my parcel
my {parcel} still hasn't arrived.
my {parcel} was supposed to be here {on_past}.
tracking for my {parcel} please.
I'm waiting for my {parcel}, any update?
""",
    ),
    "find_recipe": Intent(
        0.65,
        """
find me a recipe for {dish}
find a {cuisine} recipe for {people}
find a recipe with {food} and {food}
find something to cook with {food}
give me a recipe for {dish}
give me an easy {dish} recipe
give me a {cuisine} dinner idea
give me the next step of the recipe
look up a recipe for {dish}
look up how to make {dish}
show me how to make {dish}
show me a {cuisine} recipe that takes {duration}
show me recipes that use {food}
suggest a dinner with {food}
suggest something quick to cook for {people}
tell me how to cook {dish}
tell me the ingredients of {dish}
walk me through making {dish}
read me the {dish} recipe
search for a vegetarian {dish} recipe
how do I make {dish}?
how do you cook {dish}?
how long do I cook {dish}?
how long does {baked} take in the oven?
how much {baking} goes into {baked}?
what can I make with {food} and {food}?
what can I cook for {people} {on_day}?
what's in {dish}?
what ingredients do I need for {dish}?
what temperature do I bake {baked} at?
what should I make for dinner?
what can I use instead of {food} in {dish}?
do you have a good recipe for {dish}?
recipe for {dish} please.
{dish} for {people}, recipe please.
I want to make {dish} {on_day}.
I have {food} and {food}, what can I cook?
I've never made {dish} before, talk me through it.
""",
    ),
}

# Wordings that two or three intents share: whoever labels these has to guess what was meant, and so does a model.
AMBIGUOUS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("set_alarm", "set_timer"),
        """
wake me in {duration}
wake me up in {duration}
I'm taking a nap, wake me in {duration}.
go off in {duration}
buzz me in {duration}
give me {mins} more minutes
snooze for {mins} minutes
ring in {duration}
stop that ringing
""",
    ),
    (
        ("set_alarm", "set_reminder"),
        """
alert me at {clock}
alert me at {clock} {on_day}
let me know when it's {clock}
give me a heads up at {clock} {on_day}
beep at {clock} {on_day}
make sure I don't sleep through {event} {on_day}
don't let me miss {event} at {clock}.
ping me at {clock} for {event}
""",
    ),
    (
        ("set_timer", "set_reminder"),
        """
let me know in {duration}
tell me in {duration} to check the {pot}
ping me in {duration}
tell me to take the {pot} out in {duration}
alert me about the {pot} in {duration}
give me a shout in {duration}
""",
    ),
    (
        ("add_event", "set_reminder"),
        """
I've got {event} {on_day} at {clock}, don't let me miss it.
note {event} {on_day} at {clock}
make a note of {event} {on_day}
I have {event} {on_day} at {clock}.
{event} {on_day} at {clock}.
save {event} for {day} at {clock}
keep {event} {on_day} in mind for me
{event}, {clock}, {on_day}.
""",
    ),
    (
        ("todo_list", "set_reminder"),
        """
make a note to {task}
make a note to {task} {on_day}
note to self, {task}.
I need to {task} {on_day}.
I have to {task}.
I really should {task} {on_day}.
write down that I have to {task}
I mustn't forget to {task}.
""",
    ),
    (
        ("todo_list", "shopping_list"),
        """
add {item} to my list
add buy {item} to my list
put {item} on the list
put picking up {item} on my list
add get {item} to the list
take {item} off my list
what's on my list?
read me my list
what's still on the list for {day}?
cross the first thing off my list
""",
    ),
    (
        ("check_calendar", "todo_list"),
        """
what do I have to do {on_day}?
what's on for {day}?
what's left for {day}?
what's the plan for {day}?
what do I need to get done {on_day}?
what am I doing {on_day}?
do I still have to {task} {on_day}?
""",
    ),
    (
        ("check_calendar", "weather"),
        """
how's {day} looking?
what does {day} look like?
how does it look for {day}?
is {day} good for {event}?
what's {day} going to be like?
""",
    ),
    (
        ("check_calendar", "set_reminder"),
        """
when do I have to {task}?
what was I supposed to do at {clock}?
is there anything I shouldn't forget {on_day}?
""",
    ),
    (
        ("thermostat", "weather"),
        """
what's the temperature?
what's the temperature right now?
how warm is it?
how cold is it going to get tonight?
is it cold?
it's so cold today.
""",
    ),
    (
        ("thermostat", "volume"),
        """
set it to {level}
turn it up [a bit|a little|]
turn it down [a bit|a little|]
turn it down in the {room}
turn it up to {level}
take it up a couple
lower it a bit
raise it by {level}
back to {level} please.
that's too much, turn it down.
turn it down in the {room}, {person} is sleeping
""",
    ),
    (
        ("lights", "volume"),
        """
set it to {percent}
set the {room} to {percent}
lower it to {percent}
turn everything down in the {room}
down to {percent} in the {room}.
{room} to {percent}.
up to {percent} please.
""",
    ),
    (
        ("lights", "thermostat"),
        """
turn off everything in the {room}
switch everything off before I leave
turn it off in the {room}
turn it on in the {room} at {clock}
make the {room} cosy for {activity}
make it warmer
is it still on in the {room}?
""",
    ),
    (
        ("play_music", "volume"),
        """
turn up the {genre}
pump up the {genre} in the {room}
more {genre}, I can barely hear it.
stop the noise in the {room}
turn the {genre} off
turn that song up
I don't want to hear this.
sound on in the {room}.
silence please.
""",
    ),
    (
        ("play_music", "news"),
        """
put the radio on
turn on the radio in the {room}
play the radio
play today's show
what's new from {band}?
""",
    ),
    (
        ("play_music", "tell_joke"),
        """
cheer me up
entertain me
play something funny
something fun for {person} please.
I'm bored.
do something to cheer {person} up
""",
    ),
    (
        ("news", "weather"),
        """
any news about the storm?
any news on the storm near {city}?
what's the latest on the {hazard}?
is the {hazard} getting worse in {city}?
tell me about the {hazard} in {city}
""",
    ),
    (
        ("news", "traffic"),
        """
what's going on in {city} today?
what's going on at {place}?
any accidents today?
is there something going on on {street}?
why are there police on {street}?
is the strike still on {on_day}?
""",
    ),
    (
        ("news", "read_messages"),
        """
what's new?
what did I miss?
what did I miss {on_past}?
catch me up
anything new today?
anything new about {event}?
read me what's new
""",
    ),
    (
        ("navigate", "traffic"),
        """
what's the fastest way to {place} right now?
what's the quickest way to {city}?
how long does it take to get to {place}?
how long will it take me to drive to {city}?
how far is it to {place}?
when will I get to {place}?
will I make it to {place} by {clock}?
find a faster way to {place}
get me around the jam on {road}
which road should I take to {place}?
is it quicker on {road}?
will I make it to {event} by {clock} if I leave now?
""",
    ),
    (
        ("find_place", "navigate"),
        """
nearest {business}.
nearest {business} please.
I need a {business} [quickly|].
get me to a {business}
where is {restaurant}?
where's {place}?
show me where {restaurant} is
how far is the nearest {business}?
find {place}
find {restaurant}
""",
    ),
    (
        ("book_table", "find_place"),
        """
{cuisine} for {people} {on_day}.
{cuisine} dinner for {people} {on_day}.
we want {cuisine} food {on_day} at {clock}.
find us a table for {people} {on_day}
find us a table somewhere {cuisine} {on_day}
find a {cuisine} place for {people} {on_day} at {clock}
does {restaurant} have anything {on_day}?
get us into a good {cuisine} restaurant {on_day}
somewhere {cuisine} for {name}'s birthday please.
""",
    ),
    (
        ("add_event", "book_table"),
        """
dinner with {person} at {restaurant} {on_day} at {clock}.
lunch at {restaurant} with {person}, {on_day}.
set up dinner at {restaurant} for {people} {on_day}
move dinner at {restaurant} to {clock}
cancel dinner at {restaurant} {on_day}
plan dinner with {person} {on_day}
""",
    ),
    (
        ("book_table", "make_call"),
        """
call {restaurant} about a table {on_day}
call {restaurant} for {people} {on_day}
get on to {restaurant} about {day}
call {restaurant} and ask if they have space {on_day}
""",
    ),
    (
        ("find_place", "find_recipe"),
        """
I'm in the mood for {dish}.
I feel like {cuisine} food tonight.
I'm craving {dish}.
find me some good {dish}
what should we eat {on_day}?
any ideas for dinner {on_day}?
something {cuisine} for {people} please.
recommend a good {dish}
""",
    ),
    (
        ("find_recipe", "shopping_list"),
        """
what do I need for {dish}?
what do we need to make {dish} {on_day}?
I need everything for {dish}.
do I need {food} for {dish}?
list what I need for {dish}
what's missing for {dish}?
""",
    ),
    (
        ("convert_units", "find_recipe"),
        """
how much is a cup of {baking}?
how many cups of {baking} is that?
how much {baking} for {people}?
how hot should the oven be?
double the {baking} for me
""",
    ),
    (
        ("calculate", "convert_units"),
        """
how many minutes are in {n} hours?
how many days is {n} weeks?
how many months is {n} weeks?
how many eggs are in {m} dozen?
how much is {n} {money} with {percent} on top?
how many hours is {big} minutes?
what's {n} times {m} miles in yards?
what's half a {measure}?
what's {percent} of a {measure}?
""",
    ),
    (
        ("define", "translate"),
        """
what does {loanword} mean?
what's {loanword}?
what does the word {loanword} mean?
what's the meaning of {loanword}?
is there another word for {loanword}?
how do you say {loanword}?
tell me what {loanword} means
how do you pronounce {loanword}?
what does {person} mean by {loanword}?
{loanword} meaning.
""",
    ),
    (
        ("define", "news"),
        """
what's this thing about {topic}?
tell me about {topic}
explain {topic} to me
what's {topic} all about?
""",
    ),
    (
        ("make_call", "send_message"),
        """
get hold of {person}
get in touch with {person}
contact {person}
contact the {business} about my order
reach {person} for me
check in with {person} about {event}
get back to {person} about {event}
talk to {person} about {event}
answer {person}
I need to get back to {person}.
tell {person} I'm on my way, whatever is quickest
""",
    ),
    (
        ("send_message", "set_reminder"),
        """
remind {person} to {task}
remind {person} about {event} {on_day}
tell {person} to {task} {on_day}
remind {person} that {message}
remind {person} and me about {event}
""",
    ),
    (
        ("read_messages", "make_call"),
        """
has {person} been in touch?
did {person} try to reach me?
who was that?
who's trying to reach me?
get me the voicemail from {person}
any missed calls or messages from {person}?
""",
    ),
    (
        ("read_messages", "track_package"),
        """
anything from the courier?
did the courier write?
any update on my {parcel}?
any word on the {parcel}?
did they confirm my {parcel}?
""",
    ),
    (
        ("check_calendar", "track_package"),
        """
is anything arriving {on_day}?
who's coming {on_day}?
when are they coming with the {parcel}?
do I have to be home {on_day}?
do I have to be in {on_day} for the {parcel}?
""",
    ),
    (
        ("find_place", "shopping_list"),
        """
I need {item} right now.
where do I get {item}?
who sells {item}?
find me {item}
""",
    ),
)

# Values that fill a phrase; values may hold further slots. A slot is never preceded by "a" where a value needs "an".
SLOTS: dict[str, str] = {
    # when
    "hour": "5; 6; 7; 8; 9; 10; 11; 4; 3; 2; 1; 12",
    "hour_word": "five; six; seven; eight; nine; ten; eleven; four; three; two; one; twelve",
    "minute": "00; 15; 30; 45; 20; 10; 05; 40; 50; 25",
    "clock": """
        {hour} [am|pm]; {hour}:{minute} [am|pm]; {hour}:{minute}; half past {hour_word}; quarter to {hour_word};
        quarter past {hour_word}; {hour_word} o'clock; {hour_word} thirty; {hour_word} in the [morning|evening];
        {hour}am; {hour} {minute}; {hour}; {hour_word}; noon; {hour_word} fifteen; ten to {hour_word}; twenty
        past {hour_word}
    """,
    "weekday": "Monday; Tuesday; Wednesday; Thursday; Friday; Saturday; Sunday",
    "ordinal": """
        first; third; fifth; eighth; tenth; twelfth; fifteenth; eighteenth; twentieth; twenty second; 3rd; 9th;
        14th; 21st; 27th; 30th
    """,
    "month": "January; February; March; April; May; June; July; August; September; October; November; December",
    "day": """
        tomorrow; today; {weekday}; {weekday}; next {weekday}; this {weekday}; the {ordinal}; {month} {ordinal};
        tomorrow [morning|afternoon|evening]; {weekday} [morning|afternoon|night]; the day after tomorrow; this
        weekend; tonight
    """,
    "on_day": """
        tomorrow; today; on {weekday}; on {weekday}; next {weekday}; this {weekday}; on the {ordinal}; tonight;
        on {month} {ordinal}; tomorrow [morning|afternoon|evening]; on {weekday} [morning|afternoon|night]; the
        day after tomorrow; this weekend; next week; later today
    """,
    "on_past": """
        yesterday; last night; last week; on {weekday}; last {weekday}; this morning; over the weekend; two days
        ago; a week ago; earlier today
    """,
    "mins": "5; 10; 12; 15; 20; 25; 30; 40; 45; 6; 3; 4; three; five; ten; fifteen; twenty; thirty; forty five",
    "duration": """
        {mins} minutes; {mins} minutes; {mins} minutes; half an hour; an hour; an hour and a half; two hours;
        ninety seconds; thirty seconds; a couple of minutes; {mins} mins; two and a half hours; an hour and
        {mins} minutes; three quarters of an hour; three hours
    """,
    # who
    "name": """
        Anna; Priya; Tomas; Leila; Ben; Grace; Kofi; Mei; Sofia; Omar; Julia; Nikhil; Hannah; Diego; Ruth;
        Yusuf; Ingrid; Marcus; Chloe; Paolo; Ewa; Sam; Noor; Felix; Dana
    """,
    "person": """
        {name}; {name}; {name}; {name}; mom; dad; my sister; my brother; my wife; my husband; my boss; grandma;
        my neighbour; the landlord; my daughter; aunt Rosa; my flatmate; the babysitter; my son; the plumber
    """,
    "people": """
        two; four; five; six; eight people; two people; three; 4 people; seven of us; ten; 6 people; a dozen
        people
    """,
    # doing
    "task": """
        take out the bins; water the plants; pay the rent; call the bank; book the flights; renew my passport;
        pick up the dry cleaning; send the invoice; feed the cat; return the library books; finish the report;
        fix the tap; order new contact lenses; clean the fridge; charge the camera; sign the lease; buy a
        birthday card for {name}; take my pills; defrost the chicken; walk the dog; wash the car; cancel the gym
        membership; email the school; check the tire pressure; reply to {name}; vacuum the {room}; back up my
        laptop; change the bed sheets; make a dentist appointment; pick {name} up from the station; buy {item};
        call {name}; move the car; print the tickets; descale the coffee machine; top up my travel card; turn
        off the {lamp}; check the weather before we leave
    """,
    "event": """
        the dentist; lunch with {name}; the team meeting; the doctor's appointment; {name}'s birthday; yoga
        class; dinner with {name}; the parents' evening; my job interview; the school play; my haircut; football
        practice; the budget review; coffee with {name}; piano lessons; the vet appointment; my flight to
        {city}; the housewarming; the call with the landlord; choir rehearsal; the book club; the boiler
        inspection; my driving test; the wedding; game night; the conference call; swimming with the kids;
        {name}'s graduation
    """,
    "gathering": """
        game night; the housewarming; the team meeting; the book club; the wedding; the budget review; {name}'s
        birthday; the planning call; movie night; the picnic
    """,
    "message": """
        I'm running late; I'm on my way; dinner is at {clock}; I'll be there in {duration}; I can't come
        {on_day}; the keys are under the mat; I left my charger at their place; the meeting moved to {clock};
        I'm stuck in traffic; we're out of {item}; I'll call later; the package arrived; I'm outside; it's
        raining here; the table is booked for {clock}; the alarm is off; I love the song; I miss them; it's my
        turn to cook; my train is delayed; I'll bring {item}
    """,
    "note": """
        {message}; {message}; {message}; happy birthday; see you {on_day}; thanks for yesterday; yes, that
        works; no, not {on_day}; good luck with {event}; can you call me back; where are you; what time is
        dinner; sounds good
    """,
    "doing": "cooking; studying; working out; reading; cleaning; working; painting; on the phone; eating",
    "activity": """
        cooking; studying; dinner; the party; working out; reading; bedtime; cleaning; movie night; yoga; the
        drive; working; breakfast; painting; a bath
    """,
    # home
    "room": """
        kitchen; bedroom; living room; bathroom; hallway; office; garage; dining room; kids' room; basement;
        attic; guest room; study; nursery; porch
    """,
    "lamp": """
        bedside lamp; floor lamp; desk light; porch light; reading lamp; ceiling light; night light; garden
        light; wall light; hall light
    """,
    "colour": "red; warm white; blue; soft orange; green; purple; pink; daylight; candlelight; turquoise",
    "percent": """
        20 percent; 50 percent; 30 percent; 10%; 75%; fifty percent; 80 percent; 15 percent; 25%; forty percent;
        60 percent; 5%
    """,
    "level": "3; 5; 7; four; six; ten; 2; 8; eight; 20; 15; 22",
    "degrees": """
        20 degrees; 21 degrees; 68 degrees; 19; 72; 18 degrees; seventy degrees; twenty two; 65; 23 degrees; 70;
        nineteen degrees
    """,
    "noise": "dishwasher; vacuum; rain; kids; traffic outside; hair dryer; neighbours",
    # sound
    "genre": """
        jazz; rock; classical music; reggae; hip hop; country; techno; soul; folk; indie pop; blues; salsa;
        metal; lo-fi beats; opera; piano music; disco; bossa nova; rain sounds; film soundtracks
    """,
    "band": """
        the tin umbrellas; the slow otters; midnight postcards; paper harbour; the quiet engines; salt and
        gravel; the borrowed hats; copper lagoon; the last ferry; neon orchard; the kettle brothers; winter
        arcade
    """,
    "song": """
        paper boats; the long way down; marmalade skies; seventeen lanterns; run to the river; cold coffee
        blues; a letter from the moon; the weather song; ten more minutes; call me in the morning; borrowed
        summer; turn it up tonight; traffic lights; dancing on the stairs; home by noon; the translation of love
    """,
    "playlist": "workout; dinner; focus; Sunday morning; road trip; chill; party; sleep; running; cooking; rainy day",
    # food
    "item": """
        {food}; {food}; {food}; dish soap; toilet paper; cat food; batteries; light bulbs; toothpaste; paper towels;
        washing powder; bin bags; shampoo; candles
    """,
    "food": """
        milk; eggs; bread; bananas; butter; onions; coffee; olive oil; rice; tomatoes; oat milk; apples; cheese; pasta;
        garlic; yoghurt; spinach; flour; chicken thighs; lemons; baking powder; soy sauce; carrots; mushrooms;
        chickpeas; fresh basil; orange juice; peppers; tofu; potatoes; salmon; coconut milk
    """,
    "dish": """
        lasagna; chicken curry; banana bread; roast potatoes; lentil soup; pancakes; mushroom risotto; pad thai;
        beef stew; apple pie; fish tacos; ramen; shakshuka; meatballs; pizza; chocolate cake; ratatouille; fried
        rice; pumpkin soup; dumplings; sourdough bread; moussaka
    """,
    "pot": "lasagna; apple pie; pizza; bread; rice; pasta; chicken; tea; cake; soup; roast; egg; laundry; stew",
    "baked": """
        lasagna; apple pie; banana bread; pizza; sourdough bread; chocolate cake; meatballs; roast potatoes;
        quiche
    """,
    "cuisine": """
        Thai; Mexican; Korean; Greek; vegan; Lebanese; French; Turkish; Japanese; Peruvian; Moroccan; seafood;
        Vietnamese; Georgian
    """,
    "baking": "flour; sugar; butter; rice; milk; oats; honey; cocoa; cream; yeast",
    "restaurant": """
        the blue door; casa limon; the {cuisine} place on {street}; the old bakery; that new {cuisine}
        restaurant; the green ladle; the noodle house by {place}; the wharf kitchen; the rooftop grill; the
        corner bistro; olive and thyme; the little fig; the pizza place near {place}; three herons
    """,
    # places
    "city": """
        Lisbon; Chicago; Nairobi; Oslo; Toronto; Seoul; Madrid; Boston; Cape Town; Denver; Dublin; Hanoi; Lima;
        Glasgow; Zurich; Seattle; Mumbai; Athens; Montreal; Krakow; Austin; Wellington
    """,
    "place": """
        the airport; the train station; the office; the hospital; the stadium; {name}'s place; the city library;
        the beach; the botanical garden; the garden centre; my gym; the farmers' market; the town hall; the zoo;
        the museum; the kids' school; the ferry terminal; terminal two; the swimming pool; the university
    """,
    "office": """
        the hospital; the museum; the town hall; the kids' school; my gym; the city library; the front desk; the
        school
    """,
    "street": """
        Mill Street; Harbour Road; Oak Avenue; Station Road; Elm Street; Bridge Street; King's Lane; Market
        Square; Church Road; 5th Avenue; Canal Street; Hillcrest Drive; Orchard Way; Park Lane
    """,
    "road": """
        the highway; the ring road; the M4; route 66; {street}; the bridge; the interstate; the A9; the coast
        road; the tunnel; exit 14; the motorway; the I-90; the expressway; the road to {city}
    """,
    "business": """
        pharmacy; gas station; supermarket; coffee shop; bakery; bank; hardware store; vet; dry cleaner;
        dentist; florist; book shop; bike shop; hotel; car wash; post office; garage; laundromat; charging
        station; pet shop
    """,
    # words
    "language": """
        Spanish; French; German; Italian; Japanese; Portuguese; Korean; Arabic; Polish; Swahili; Greek; Turkish;
        Dutch; Hindi; Mandarin; Swedish
    """,
    "said": '{phrase}; {phrase}; "{phrase}"',
    "phrase": """
        good morning; where is the bathroom; how much does this cost; thank you very much; I'm allergic to nuts;
        the bill please; nice to meet you; I don't understand; can you help me; happy birthday; two coffees
        please; I love you; where is {place}; is this seat taken; what time is it; a table for two; see you
        tomorrow; turn left here; I'm looking for a {business}; what's the weather like; I missed my train; good
        luck; call me later
    """,
    "foreign": """
        buenas noches; guten Appetit; merci beaucoup; dove sei; arigato; obrigado; wie geht es dir; mi casa es
        tu casa; tak for mad; je ne sais pas; hasta manana; danke schoen; bonne chance; ti amo; mahalo; grazie
        mille; por favor
    """,
    "noun": """
        bridge; butterfly; thunder; neighbour; spoon; hedgehog; umbrella; window; pineapple; weather; alarm;
        sandwich; music; ladder; kitchen; penguin; pillow; library
    """,
    "trait": """
        gregarious; pragmatic; verbose; candid; tenacious; eloquent; facetious; quixotic; laconic; benevolent;
        zealous; stoic; capricious; reticent; meticulous; redundant; ambiguous; mundane
    """,
    "word": """
        {trait}; {trait}; ephemeral; ubiquitous; obfuscate; serendipity; nostalgia; petrichor; procrastinate;
        ostracize; lethargy; cacophony; mitigate; paradigm; acquiesce; hubris; quandary
    """,
    "concept": """
        inflation; photosynthesis; a mortgage; dark matter; compound interest; a metaphor; osmosis; a black
        hole; irony; machine learning; a recession; umami; relativity; a haiku; entropy
    """,
    "loanword": """
        hygge; schadenfreude; deja vu; wanderlust; siesta; zeitgeist; al dente; carpe diem; faux pas; kaput; ad
        hoc; doppelganger; voila; sobremesa; fika; saudade; mise en place; chutzpah; tsundoku; bona fide
    """,
    # numbers
    "n": """
        12; 25; 40; 7; 150; 3; 18; 60; 90; 500; 2.5; 75; 33; 220; fifteen; twenty; a hundred; 64; 8; 1200; 45;
        9; 350; 6.5
    """,
    "m": "4; 7; 12; 15; 3; 6; 9; 11; 23; 8; 16; twelve; five",
    "big": "84; 360; 125; 240; 1,500; 96; 47.50; 999; 73; 612; 2,048; 188; 64; 310; 5280; 86.40; two hundred; 1250",
    "tip": "15; 20; 10; 12; 22; fifteen; twenty",
    "sum": """
        {n} times {m}; {n} plus {big}; {big} minus {n}; {big} divided by {m}; {n} + {big}; {n} x {m}; {big} /
        {m}; {percent} of {big}; {n} to the power of {m}; {n} times {m} plus {big}; {big} - {n}; {big} over {m};
        {n} * {m}
    """,
    "money": "dollars; euros; pounds; yen; pesos; francs; rupees; kroner",
    "from_to": """
        miles to kilometers; kilometers to miles; pounds to kilos; inches to centimeters; feet to meters; ounces
        to grams; liters to gallons; grams to ounces; Celsius to Fahrenheit; Fahrenheit to Celsius; kilos to
        pounds; cups to milliliters; acres to hectares; stone to kilos; knots to miles per hour
    """,
    "from_in": """
        miles in kilometers; kilometers in miles; pounds in kilos; inches in centimeters; feet in meters; ounces
        in grams; gallons in liters; degrees Celsius in Fahrenheit; square feet in square meters; yards in
        meters; cups in milliliters; miles per hour in kilometers per hour; tablespoons in milliliters
    """,
    "pair_in": """
        kilometers are in {n} miles; grams are in {n} ounces; cups are in a liter; feet are in a mile; inches
        are in {n} centimeters; pounds are in {n} kilos; liters are in {n} gallons; ounces are in a pound;
        teaspoons are in a tablespoon; milliliters are in {n} cups; meters are in {n} yards; pints are in a
        gallon
    """,
    "pair_per": """
        pounds is {n} kilos; centimeters is {n} inches; miles is {n} kilometers; cups is {n} milliliters; liters
        is {n} gallons; grams is {n} ounces; feet is {n} meters
    """,
    "dist_in": "miles in kilometers; kilometers in miles; feet in meters; yards in meters; nautical miles in miles",
    "mass_in": "pounds in kilos; ounces in grams; kilos in pounds; stone in kilos; grams in ounces",
    "oven": "350 degrees; 180 degrees; 400 degrees; gas mark 6; 200 degrees; 425 degrees",
    "height": "five foot six; six feet; 5 foot 11; five foot two; six foot three; 5'9",
    "measure": "cup; mile; pound; gallon; dozen; kilo; liter",
    # the world
    "topic": """
        the election; the rail strike; the space launch; the new tax; the housing market; the transfer window;
        the budget vote; the oil spill; the climate summit; the bridge collapse; the flu outbreak; the teachers'
        strike; the merger; the court case; interest rates; the power cut in {city}
    """,
    "field": "sports; tech; business; science; politics; entertainment; finance; health; football; climate; travel",
    "contest": "match; cup final; marathon; election; tennis final; race; hockey game; league; chess championship",
    "hazard": "flooding; heat wave; wildfires; storm; hurricane; snow; fog; landslide",
    "joke_topic": """
        cats; penguins; the weather; accountants; cheese; teachers; robots; vampires; trains; doctors; cows;
        computers; dinosaurs; Mondays; chickens; traffic; lightbulbs; elephants; marriage; pirates
    """,
    "parcel": """
        order; new phone; box of books; parcel; laptop; winter coat; mattress; birthday present; replacement
        charger; desk; bike helmet; coffee order; package; camera; pair of boots; keyboard; rug; blender; phone
        case; jacket
    """,
    "sky": "sunny; windy; cloudy; foggy; humid; freezing; stormy; hot; icy; dry",
}

# How a request of each kind is wrapped; "{}" is the request, and the last mark is the one of the whole.
FRAMES: dict[str, str] = {
    "order": """
can you {}?
can you {}?
could you {}?
could you {} please?
can you please {}?
would you {}?
please {}
please {}
{} please
{}, please
{} thanks
{}, thank you
{} if you can
{} when you get a chance
{}, quickly
I need you to {}.
I'd like you to {}.
I want you to {}.
hey, {}
hey, can you {}?
ok, {}
hey assistant, {}
just {}
go ahead and {}
would you please {}?
now {}
um, {}
sorry, could you {}?
first {}
right, {}
let's see, {}
yeah, {}
actually, {}
""",
    "question": """
hey, {}?
hey assistant, {}?
so {}?
quick question, {}?
um, {}?
sorry, {}?
ok, {}?
one more thing, {}?
and {}?
hi, {}?
right, {}?
wait, {}?
tell me, {}?
just wondering, {}?
I was wondering, {}?
any idea, {}?
oh, {}?
listen, {}?
remind me, {}?
{} please?
{}, do you know?
""",
    "remark": """
hey, {}.
hey assistant, {}.
hi, {}.
ok, {}.
so, {}.
um, {}.
uh, {}.
right, {}.
well, {}.
listen, {}.
actually, {}.
oh, {}.
yeah, {}.
{} thanks.
{}, thank you.
""",
}

# Said before a request, or after it, by somebody who is busy with something else; often with another intent's words.
LEADS = """
my hands are full
I'm driving
I'm about to go to bed
I'm in the middle of cooking
the kids are asleep
we have guests tonight
I just got home
I'm in a hurry
it's freezing in here
the music is still on, never mind that
never mind the timer
forget the alarm
I'm on the phone with {person}
I'm still at {place}
I'm in a meeting
the oven is on
after the news
before I forget
while you're at it
since it's raining
I'm almost out of battery
{person} just walked in
I have to leave in {duration}
the doorbell rang
I can't find my glasses
it's nearly {clock}
it's {person}'s birthday {on_day}
I'm off to {city} {on_day}
the traffic was terrible
I just read the messages
dinner is almost ready
I've looked at the calendar already
skip the weather
no more jokes
thanks for the directions
the volume is fine now
leave the lights as they are
I'm making {dish}
we're having {dish} {on_day}
that's it for the shopping list
"""

TAILS = """
before I forget
I'm in a hurry
my hands are wet
I have to leave in {duration}
we have guests coming
the kids are asleep
I'm driving
I'm in a meeting
{person} is asking
{person} wants to know
it's for {event}
it's for {person}
it's urgent
no rush
if that's possible
I forgot to do it earlier
I've got {event} soon
it's getting late
I'm making {dish}
I'm on the way to {place}
I need to go to bed
because it's {person}'s birthday
and after that we're done
and don't play anything
and not the other one this time
as usual
like last time
and be quick
"""

# Whole sentences by people who explain themselves before they get to the point.
RAMBLES = """
my alarm didn't go off this morning and I was late for the second time this week
{person} always sleeps through three alarms and then blames me for it
I left the pasta on the stove once because I trusted myself to watch the clock, and you can imagine how that ended
I have this habit of writing reminders on the back of my hand, and then I wash my hands
I completely forgot about {event} last month and I still feel bad about it
my calendar is a mess, half of the meetings in there were moved or cancelled weeks ago
we had {event} planned for ages and now {person} says {on_day} doesn't work any more
everybody keeps talking about the rain, but I looked outside and it seems fine to me
it was thirty degrees yesterday and today I'm wearing a sweater, I don't understand this place
we were supposed to have a picnic {on_day}, but the forecast has changed four times since {weekday}
I've had the same song in my head since breakfast and nobody knows what it's called
{person} put on {genre} at full volume at six in the morning and the neighbours came over to complain
the band we saw {on_past} was so loud that my ears were ringing until the next day
the speaker in the {room} has been crackling ever since somebody spilled coffee on it
{person} leaves every single light in the house on, even in the {room}, and then complains about the bill
the bulb in the {lamp} went out again, which is the third one this year
the heating bill was enormous last month, so we said we would all wear sweaters from now on
{person} likes the bedroom at sixteen degrees and I like it at twenty two, so you can see the problem
I went to the supermarket yesterday and forgot the {item}, which was the only reason I went
there's no {item} left because {person} finished it and put the empty box back
I had a list of things to do today and I've done exactly none of them
I still have to {task}, and {task}, and I promised {person} I would {task}
{person} texted me about {event} and I never wrote back, which was rude of me
I've been trying to reach {person} all day and it just goes to voicemail
we talked on the phone for an hour and I forgot to ask the one thing I wanted to know
last time I drove to {city} the app sent me through a field, and I'm not joking
I was standing on {road} for two hours because of an accident, with no air conditioning
{person} says {road} is always empty at this time, but {person} says that about everything
we wanted to go to {restaurant} but they never pick up the phone
{person} found this {cuisine} place near {place} that is supposed to be amazing, though it's closed on Mondays
last time we went out for dinner there were {people} and they put us next to the kitchen door
I've been learning {language} for two years and I still can't order a coffee
in {city} somebody said something to me in {language} and I just smiled and nodded
{person} used the word {word} at dinner and everybody pretended to know what it meant
I grew up with miles and pounds and now everything here is in kilometers and kilos
I was never good with numbers, and the bill {on_past} proved it again
we were {people} at dinner and it took half an hour to work out who pays what
I stopped reading the news because all they talk about is {topic}
{person} told me about {topic} but got most of it wrong, I think
{person} tells the same joke at every party and it gets worse each time
I ordered a {parcel} two weeks ago and the courier says nobody was home, which is not true
the neighbours took a parcel for us and then went on holiday for ten days
I wanted to make {dish} but the recipe is in a book that {person} borrowed
{person} doesn't eat meat, {person} doesn't eat cheese, and I have to cook for all of them
my mother made the best {dish} and of course she never wrote the recipe down
I've been on my feet since {clock} and I haven't even had lunch yet
the dog got out this morning and we spent an hour looking for him around {place}
it has been one of those weeks where everything breaks at the same time
the kids have the flu, the washing machine is leaking and I have {event} {on_day}
we just moved here and I still don't know where anything is
my phone is almost dead and the charger is in the car, which {person} took
I'm packing for {city} and there are clothes all over the {room}
I told {person} I'd be there at {clock} and it's already later than I thought
I'm standing in the {room} with flour up to my elbows and the doorbell keeps ringing
my doctor says I should sleep more and work less, which is easy to say
I'm on the bus, so I hope you can hear me, it's rather loud in here
"""

BRIDGES = """
anyway, {}
anyway, {}
so, {}
so {}
long story short, {}
what I wanted to say is, {}
but that's another story, {}
so with all that, {}
right, where was I, {}
ok, to the point, {}
that's why I'm asking, {}
never mind all that, {}
{}
{}
"""

FILLERS = "um; uh; um; uh; er; like"
